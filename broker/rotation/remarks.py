"""Warnings of what is met again with every look: at most one a minute of each thing, however long it lasts."""

from __future__ import annotations

from typing import Final

import structlog

from broker.clock import Clock

log = structlog.get_logger()

AGAIN_S: Final = 60.0


class Remarks:
    """Remembers what it warned of within the last minute: no more than there are things to warn of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[tuple[str, ...], float] = {}

    def warn(self, event: str, error: Exception, **about: str) -> None:
        """Say it, unless this event of the same thing was said less than `AGAIN_S` ago."""
        now = self._clock.monotonic()
        recent = {key: at for key, at in self._said.items() if now < at + AGAIN_S}
        key = (event, *about.values())
        if key not in recent:
            recent[key] = now
            log.warning(event, error=str(error), **about)
        self._said = recent
