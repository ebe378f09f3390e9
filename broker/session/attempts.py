"""Failed handshakes by address: what is refused before any cryptography, and what the audit log is told."""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeVar

from broker.audit.entries import SessionRefused
from broker.clock import Clock
from broker.sources import source_key
from broker.vault.pacing import Pace

K = TypeVar("K")
V = TypeVar("V")

_BOUND: Final = 8192
_QUIET_S: Final = 10.0
_ENTRIES_PER_S: Final = 2.0
_ENTRIES_AT_ONCE: Final = 50


class Attempts:
    """Counts failures per source within a window; at most 8192 sources, the oldest windows leave first.

    A source is an IPv4 address or an IPv6 network of 64 bits. All of them together get 50 entries of the audit log at
    once and then 2 a second: whoever has many addresses fills no disk.
    """

    def __init__(self, *, clock: Clock, failures_max: int, failures_s: float) -> None:
        self._clock = clock
        self._failures_max = failures_max
        self._failures_s = failures_s
        self._failures: dict[str, tuple[float, int]] = {}
        self._pace = Pace(rate_per_s=_ENTRIES_PER_S, burst=_ENTRIES_AT_ONCE)
        self._noted: dict[tuple[str, str], tuple[float, int]] = {}

    def barred(self, source: str) -> bool:
        """Whether this address failed too often lately."""
        since, count = self._failures.get(source_key(source), (0.0, 0))
        return count >= self._failures_max and self._clock.monotonic() - since < self._failures_s

    def failed(self, source: str, reason: str, worker: str) -> SessionRefused | None:
        """Count a failure; the audit entry to write, or None when it is left to the count of a later one."""
        now = self._clock.monotonic()
        key = source_key(source)
        since, count = self._failures.pop(key, (now, 0))
        if now - since >= self._failures_s:
            since, count = now, 0
        _bounded(self._failures)
        self._failures[key] = (since, count + 1)
        return self._note(source, reason, worker, now, self._clock.now())

    def _note(self, source: str, reason: str, worker: str, mono: float, now: datetime) -> SessionRefused | None:
        kind = (source_key(source), reason)
        written, silent = self._noted.pop(kind, (float("-inf"), 0))
        _bounded(self._noted)
        if mono - written < _QUIET_S or not self._room(mono):
            self._noted[kind] = (written, silent + 1)
            return None
        self._noted[kind] = (mono, 0)
        return SessionRefused(at=now, actor="system", source=source, reason=reason, worker=worker, count=1 + silent)

    def _room(self, mono: float) -> bool:
        if self._pace.take(mono) > 0:
            self._pace.give_back()
            return False
        return True


def _bounded(table: dict[K, V]) -> None:
    while len(table) >= _BOUND:
        del table[next(iter(table))]
