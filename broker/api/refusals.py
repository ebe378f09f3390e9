"""Record refused requests in the audit log without letting whoever is refused decide how much is written.

The first refusal of a source and reason is written at once, the following ones as a count, at most once a minute; all
sources together at most 2 a second. Answering the refused is `dispatch`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from broker.api.limits import Buckets, Rate
from broker.audit.entries import AdminRefused
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError, RateLimited

EVERY_S: Final = 60.0
KEYS_MAX: Final = 1000
_log = structlog.get_logger("tokenbroker.api")


@dataclass(kw_only=True, slots=True)
class _Tally:
    """Refusals not written yet, and when one was last written."""

    count: int = 0
    written_at: float | None = None


class Refusals:
    """Counts refusals by actor, source and reason. What is left when the process ends was never written."""

    def __init__(self, *, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._pace = Buckets(rate=Rate(per_s=2.0, burst=50), keys_max=1, monotonic=clock.monotonic)

    async def note(self, *, actor: str, source: str, reason: str) -> None:
        """Count one refusal and write it when its time has come. Never raises for a log that cannot be written."""
        key = (actor, source, reason)
        tally = self._tallies.pop(key, None) or _Tally()
        if len(self._tallies) >= KEYS_MAX:
            del self._tallies[next(iter(self._tallies))]
        self._tallies[key] = tally
        tally.count += 1
        now = self._clock.monotonic()
        if tally.written_at is not None and now - tally.written_at < EVERY_S:
            return
        try:
            self._pace.take("all", "refusals")
        except RateLimited:
            return
        count, tally.count, tally.written_at = tally.count, 0, now
        entry = AdminRefused(at=self._clock.now(), actor=actor, source=source, reason=reason, count=count)
        try:
            await self._authority.commit((entry,))
        except BrokerError as error:
            tally.count += count
            _log.warning("api.refusal_not_recorded", source=source, reason=reason, error=error.code)
