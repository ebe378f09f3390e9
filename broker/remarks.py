"""What is met again with every look goes into the log at most once a minute of each thing, however long it lasts."""

from __future__ import annotations

from typing import Final

import structlog

from broker.clock import Clock

log = structlog.get_logger()

AGAIN_S: Final = 60.0


class Remarks:
    """Remembers what it said within the last minute: no more than there are things to speak of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[tuple[str, ...], float] = {}

    def warn(self, event: str, error: Exception, **about: str) -> None:
        """Say it, unless this event of the same thing was said less than `AGAIN_S` ago."""
        if self._is_new((event, *about.values())):
            log.warning(event, error=str(error), **about)

    def alarm(self, event: str, error: Exception, **about: str) -> None:
        """The same, of what somebody has to look at."""
        if self._is_new((event, *about.values())):
            log.error(event, error=str(error), **about)

    def _is_new(self, key: tuple[str, ...]) -> bool:
        now = self._clock.monotonic()
        said_at = self._said.get(key)
        if said_at is not None and now < said_at + AGAIN_S:
            return False
        self._said = {key: at for key, at in self._said.items() if now < at + AGAIN_S}
        self._said[key] = now
        return True
