"""Failed handshakes by address: what is refused before any cryptography, and what the audit log is told."""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeVar

from broker.audit.entries import SessionRefused
from broker.clock import Clock

K = TypeVar("K")
V = TypeVar("V")

_BOUND: Final = 8192
_QUIET_S: Final = 10.0


class Attempts:
    """Counts failures per address within a window; at most 8192 addresses, the oldest windows leave first."""

    def __init__(self, *, clock: Clock, failures_max: int, failures_s: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._failures_s = failures_s
        self._failures: dict[str, tuple[float, int]] = {}
        self._noted: dict[tuple[str, str], tuple[float, int]] = {}

    def barred(self, source: str) -> bool:
        """Whether this address failed too often lately."""
        since, count = self._failures.get(source, (0.0, 0))
        return count >= self._failures_max and self._clock.monotonic() - since < self._failures_s

    def failed(self, source: str, reason: str, worker: str) -> SessionRefused | None:
        """Count a failure; the audit entry to write, or None when a like one was written within 10 seconds."""
        now = self._clock.monotonic()
        since, count = self._failures.pop(source, (now, 0))
        if now - since >= self._failures_s:
            since, count = now, 0
        _bounded(self._failures)
        self._failures[source] = (since, count + 1)
        return self._note(source, reason, worker, now, self._clock.now())

    def _note(self, source: str, reason: str, worker: str, mono: float, now: datetime) -> SessionRefused | None:
        kind = (source, reason)
        written, silent = self._noted.pop(kind, (float("-inf"), 0))
        if mono - written < _QUIET_S:
            self._noted[kind] = (written, silent + 1)
            return None
        _bounded(self._noted)
        self._noted[kind] = (mono, 0)
        return SessionRefused(at=now, actor="system", source=source, reason=reason, worker=worker, count=1 + silent)


def _bounded(table: dict[K, V]) -> None:
    while len(table) >= _BOUND:
        del table[next(iter(table))]
