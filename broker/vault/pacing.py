"""A token bucket that tells how long to wait. Waiting does not live here."""

from __future__ import annotations


class Pace:
    """Allows `burst` calls at once and `rate_per_s` in the long run. Starts full."""

    def __init__(self, *, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._counted_at: float | None = None

    def take(self, now: float) -> float:
        """Take one place in line; the seconds to wait before using it, 0.0 when it is free at once."""
        if self._counted_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate_per_s)
        self._counted_at = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate_per_s)

    def give_back(self) -> None:
        """Return a place that was taken and not used."""
        self._tokens = min(self._burst, self._tokens + 1.0)
