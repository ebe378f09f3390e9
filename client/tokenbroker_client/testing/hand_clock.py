"""A clock for tests: time passes when the test says so."""

from __future__ import annotations


class HandClock:
    """Stands in for `elapsed` in `connect` and in `FakeBroker`."""

    def __init__(self, present_s: float = 1000.0) -> None:
        self._present_s = present_s

    def __call__(self) -> float:
        return self._present_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._present_s += seconds
