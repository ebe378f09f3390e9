"""Which tokens this worker holds, and under which lease. No I/O: what to ask of the broker is in `keeper`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tokenbroker_client.changes import Change
from tokenbroker_client.holding import Holding
from tokenbroker_client.wire import Granted, HeldLease, Stage


class Roster:
    """Holdings by token and stage, and by lease: one of each at most, as a session has one lease per place."""

    def __init__(self, *, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._by_place: dict[tuple[str, Stage], Holding] = {}
        self._by_lease: dict[str, Holding] = {}

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._by_place.values()))

    def claim(self, token: str, stage: Stage) -> Holding:
        """Return the holding of this token and stage for one more user."""
        holding = self._current(token, stage)
        holding.users += 1
        return holding

    def of(self, lease: str) -> Holding | None:
        """Return the holding that lives by this lease."""
        return self._by_lease.get(lease)

    def granted(self, granted: Granted, *, since: float) -> tuple[Holding, Change | None]:
        """Enter a grant, whoever asked for it, and return its holding and the change for those who held it before."""
        holding = self._current(granted.token, granted.stage)
        self.unbind(holding)
        change = holding.take(granted, since=since)
        self._by_lease[granted.lease] = holding
        return holding, change

    def unbind(self, holding: Holding) -> str | None:
        """Take its lease off a holding, and return it; None when it has none, or another holding has it by now."""
        lease, holding.lease = holding.lease, None
        if lease is None or self._by_lease.get(lease) is not holding:
            return None
        del self._by_lease[lease]
        return lease

    def forget(self, holding: Holding) -> None:
        """Strike a holding that nobody uses."""
        self.unbind(holding)
        place = (holding.token, holding.stage)
        if self._by_place.get(place) is holding:
            del self._by_place[place]

    def stated(self) -> list[HeldLease]:
        """Return what to resume in another session."""
        return [held for holding in self if holding.users and (held := holding.stated()) is not None]

    def _current(self, token: str, stage: Stage) -> Holding:
        """Return its holding; another one when the last is over for good, whose users keep what they have."""
        last = self._by_place.get((token, stage))
        if last is not None and not last.final:
            return last
        turn = last.turn if last is not None else None
        holding = Holding(token=token, stage=stage, elapsed=self._elapsed, turn=turn)
        self._by_place[token, stage] = holding
        return holding
