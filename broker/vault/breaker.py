"""Leaving a KMS key alone that does not answer, and finding out gently when it does again.

What counts as an answer is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class BreakerState(Enum):
    """CLOSED lets calls through, OPEN none, PROBING exactly one."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """Opens after `failures_max` unanswered calls in a row, for open_s (+ up to half of it), doubling to open_max_s."""

    def __init__(self, *, failures_max: int, open_s: float, open_max_s: float, jitter: Callable[[], float]) -> None:
        self._failures_max = failures_max
        self._open_s = open_s
        self._open_max_s = open_max_s
        self._jitter = jitter
        self._closed_again_at = 0.0
        self._next_open_s = open_s
        self.failures = 0
        self.state = BreakerState.CLOSED

    def is_shut(self, now: float) -> bool:
        """Whether `admit` would refuse a call at `now`."""
        if self.state is BreakerState.CLOSED:
            return False
        return self.state is BreakerState.PROBING or now < self._closed_again_at

    def admit(self, now: float) -> bool:
        """Let a call through, or not. After True, exactly one of answered, failed and abandoned must follow."""
        if self.is_shut(now):
            return False
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.PROBING
        return True

    def answered(self) -> None:
        """The KMS answered, if only to refuse."""
        self.failures = 0
        self.state = BreakerState.CLOSED
        self._next_open_s = self._open_s

    def failed(self, now: float) -> None:
        """The KMS did not answer."""
        self.failures += 1
        if self.state is BreakerState.PROBING or (
            self.state is BreakerState.CLOSED and self.failures >= self._failures_max
        ):
            self.state = BreakerState.OPEN
            self._closed_again_at = now + self._next_open_s * (1 + self._jitter() / 2)
            self._next_open_s = min(self._next_open_s * 2, self._open_max_s)

    def abandoned(self) -> None:
        """The call was given up before anything was known; the next one may probe instead."""
        if self.state is BreakerState.PROBING:
            self.state = BreakerState.OPEN
