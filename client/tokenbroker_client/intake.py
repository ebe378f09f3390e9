"""Applying what the broker says of leases to what is known of them. No I/O, no waiting.

Frames reach this in the order in which they arrived, before any waiter runs, so a rotation that follows a grant in the
same packet is applied after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tokenbroker_client.acknowledger import Acknowledger
from tokenbroker_client.connection import Answer
from tokenbroker_client.delivery import Delivery
from tokenbroker_client.holding import Holding
from tokenbroker_client.roster import Roster
from tokenbroker_client.wire import (
    Ack,
    AckStatus,
    GoneCode,
    Granted,
    HeldLease,
    Renewed,
    Resumed,
    Revoked,
    Rotated,
    ServerFrame,
)


class Errands(Protocol):
    """What the broker's words make necessary, done in the background."""

    def ask_again(self, holding: Holding, *, release_first: bool = False) -> None:
        """Ask for another lease in place of one that ran out, or is about to."""

    def drop(self, holding: Holding) -> None:
        """Give back a lease that nobody uses."""


class Intake:
    """The reader's side of every lease."""

    def __init__(
        self,
        *,
        roster: Roster,
        delivery: Delivery,
        acks: Acknowledger,
        errands: Errands,
        elapsed: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._delivery = delivery
        self._acks = acks
        self._errands = errands
        self._elapsed = elapsed

    def pushed(self, frame: ServerFrame) -> None:
        """Apply a push; other frames change nothing. Raises WireError for a value that its encoding cannot hold."""
        if isinstance(frame, Renewed):
            self._renewed(frame)
        elif isinstance(frame, Rotated):
            self._rotated(frame)
        elif isinstance(frame, Revoked):
            for lease in frame.leases:
                self._revoked(lease, frame.reason)

    def granted(self, answer: Answer, since: float) -> None:
        """Enter a grant. One that nobody waits for any more is given back."""
        assert isinstance(answer, Granted)
        holding, change = self._roster.granted(answer, since=since)
        if holding.users == 0:
            holding.release()
            self._errands.drop(holding)
        else:
            self._delivery.deliver(holding, change, None)

    def resumed(self, stated: tuple[HeldLease, ...], answer: Answer, since: float) -> None:
        """Enter what became of the leases that were `stated`; one that the broker does not mention is lost."""
        assert isinstance(answer, Resumed)
        over = {held.lease: GoneCode.UNKNOWN.value for held in stated}
        for live in answer.live:
            over.pop(live.lease, None)
            holding = self._roster.of(live.lease)
            if holding is not None:
                holding.extend(live.ttl_s, since=since)
        for rotated in answer.rotated:
            over.pop(rotated.lease, None)
            self._rotated(rotated)
        over |= {gone.lease: gone.code for gone in answer.gone}
        for lease, code in over.items():
            self.lost(lease, code)

    def _renewed(self, frame: Renewed) -> None:
        for live in frame.leases:
            holding = self._roster.of(live.lease)
            if holding is None:
                continue
            holding.renew(live.ttl_s, since=self._elapsed())
            if holding.ends_for_good:
                self._errands.ask_again(holding, release_first=True)
        for gone in frame.gone or ():
            self.lost(gone.lease, gone.code)

    def _rotated(self, frame: Rotated) -> None:
        holding = self._roster.of(frame.lease)
        if holding is None:
            return
        if holding.remaining_s <= 0.0:
            # Without this value a renewal on its way would bring the old one back.
            holding.expire()
            self._errands.ask_again(holding)
            return
        change = holding.rotate(frame)
        ack = Ack(lease=frame.lease, version=frame.version, status=AckStatus.APPLIED)
        self._delivery.deliver(holding, change, ack)

    def _revoked(self, lease: str, reason: str) -> None:
        ack = Ack(lease=lease, status=AckStatus.WIPED)
        holding = self._roster.of(lease)
        if holding is None:
            self._acks.post(ack)  # nothing of it is left here
            return
        change = holding.revoke(reason)
        self._roster.unbind(holding)
        self._delivery.deliver(holding, change, ack)

    def lost(self, lease: str, code: str) -> None:
        """Give up a lease that is over, and ask again unless it was revoked."""
        holding = self._roster.of(lease)
        if holding is None:
            return
        if code == GoneCode.REVOKED:
            self._revoked(lease, "")
            return
        self._roster.unbind(holding)
        holding.expire()
        self._errands.ask_again(holding)
