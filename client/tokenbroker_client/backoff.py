"""How long to wait before trying again. Waiting itself happens where the trying does."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_DOUBLINGS = 32


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter: after n failures, anything up to min(most_s, first_s · 2ⁿ).

    Full jitter spreads clients that all lost the same broker at the same instant. What the broker asks for
    (`retry_after_s`) is a floor, itself bounded by an hour, under the jittered pause.
    """

    first_s: float = 0.25
    most_s: float = 30.0
    jitter: Callable[[], float] = field(default=secrets.SystemRandom().random, repr=False)

    def pause_s(self, failures: int, *, at_least_s: float | None = None) -> float:
        """Return the seconds to wait after `failures` failures in a row (0: the first)."""
        ceiling = min(self.most_s, self.first_s * float(1 << min(failures, _MOST_DOUBLINGS)))
        return min(at_least_s or 0.0, 3600.0) + self.jitter() * ceiling
