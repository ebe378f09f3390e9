"""A request's turn at a pool: since when it waits, and the place that it was given. `line` gives places."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from broker.leases.pools.places import Spot
from storage.records import TicketRecord


class TurnState(StrEnum):
    """How far a turn has come. served: its ticket is gone with it. over: a ticket of it may be left."""

    WAITING = "waiting"
    PLACED = "placed"
    SERVED = "served"
    OVER = "over"


class Turn:
    """id: orders turns by when they were asked for. until: monotonic; later than that it is given up.

    ticket: its row, where it stands in line on record. spot: the place that it was given; it may be used for one try.
    """

    __slots__ = ("_tries", "asked_at", "id", "spot", "state", "ticket", "until")

    def __init__(self, *, turn_id: str, asked_at: datetime, until: float) -> None:
        self.id = turn_id
        self.asked_at = asked_at
        self.until = until
        self.ticket: TicketRecord | None = None
        self.spot: Spot | None = None
        self.state = TurnState.WAITING
        self._tries = 0

    def place(self, spot: Spot, *, tries: int) -> None:
        """Let it take this place. tries: how often its request was decided in vain until now."""
        self.spot, self._tries, self.state = spot, tries, TurnState.PLACED

    def take(self, *, tries: int) -> Spot | None:
        """The place, for the try that it was given for; None: there is none, or another lease may have it by now."""
        return self.spot if self.state is TurnState.PLACED and tries == self._tries else None

    def end(self, *, served: bool) -> None:
        """Its request has been answered. served: with the place that it was given, so its ticket went with it."""
        self.state = TurnState.SERVED if served else TurnState.OVER
        if served:
            self.ticket = None

    def wait(self) -> None:
        """It has no place any more."""
        self.spot, self.state = None, TurnState.WAITING
