"""Refused leases in the audit log, without letting one worker that asks in a loop fill it."""

from __future__ import annotations

from datetime import datetime

from broker.audit.entries import LeaseRefused
from broker.errors import BrokerError
from broker.leases.answers import wire_code
from broker.leases.context import NotAllowed
from broker.leases.granting import Grant


class Refusals:
    """The first refusal of a session, token and code is recorded at once; like ones are counted for `quiet_s` seconds.

    The count is carried by the next entry of that kind. At most `bound` kinds are remembered; beyond that every refusal
    is recorded until room is made by age.
    """

    def __init__(self, *, quiet_s: float = 10.0, bound: int = 4096) -> None:
        self._quiet_s = quiet_s
        self._bound = bound
        self._seen: dict[tuple[str, str, str], list[float]] = {}

    def note(self, operation: Grant, error: BrokerError, *, now: datetime, mono: float) -> LeaseRefused | None:
        """The entry to write, or None when a like one was written a moment ago."""
        code = str(wire_code(error))
        kind = (operation.holder.session, operation.token, code)
        seen = self._seen.get(kind)
        if seen is not None and mono - seen[0] < self._quiet_s:
            seen[1] += 1
            return None
        if len(self._seen) >= self._bound:
            self._seen = {k: s for k, s in self._seen.items() if mono - s[0] < self._quiet_s}
        count = 1 if seen is None else 1 + int(seen[1])
        if len(self._seen) < self._bound:
            self._seen[kind] = [mono, 0]
        return LeaseRefused(
            at=now,
            actor=operation.holder.actor,
            token=operation.token,
            session=operation.holder.session,
            code=code,
            reason=error.reason if isinstance(error, NotAllowed) else code,
            count=count,
        )
