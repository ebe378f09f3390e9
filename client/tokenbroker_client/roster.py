"""Which tokens this worker holds, and under which lease. No I/O: what to ask of the broker is in `keeper`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tokenbroker_client.changes import Change
from tokenbroker_client.holding import Holding
from tokenbroker_client.wire import Granted, HeldLease


class Roster:
    """Holdings by token and by lease: at most one of each kind, for a session has one lease per token."""

    def __init__(self, *, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._by_token: dict[str, Holding] = {}
        self._by_lease: dict[str, Holding] = {}

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._by_token.values()))

    def claim(self, token: str) -> Holding:
        """Return the token's holding for one more user."""
        holding = self._current(token)
        holding.users += 1
        return holding

    def of(self, lease: str) -> Holding | None:
        """Return the holding that lives by this lease."""
        return self._by_lease.get(lease)

    def granted(self, granted: Granted, *, since: float) -> tuple[Holding, Change | None]:
        """Enter a grant, whoever asked for it, and return its holding and the change for those who held it before."""
        holding = self._current(granted.token)
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
        if self._by_token.get(holding.token) is holding:
            del self._by_token[holding.token]

    def stated(self) -> list[HeldLease]:
        """Return what to resume in another session."""
        return [held for holding in self if holding.users and (held := holding.stated()) is not None]

    def _current(self, token: str) -> Holding:
        """Return the token's holding; another one when the last is over for good, whose users keep what they have."""
        last = self._by_token.get(token)
        if last is not None and not last.final:
            return last
        turn = last.turn if last is not None else None
        holding = self._by_token[token] = Holding(token=token, elapsed=self._elapsed, turn=turn)
        return holding
