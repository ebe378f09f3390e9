"""What the vault counts. Exporting the numbers does not live here."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

CALL_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Upper bounds by which KMS calls are counted; a call is given up after 2 s."""

_AGES: Final = {600.0: "10m", 1800.0: "30m", 3600.0: "1h"}
_AGE_BOUNDS_S: Final = tuple(_AGES)
_AGE_NAMES: Final = (*_AGES.values(), "more")


class CallTimes:
    """How long finished calls took. counts: by the bounds of CALL_BOUNDS_S, longer ones last."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(CALL_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one call."""
        self.counts[bisect_left(CALL_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@dataclass(kw_only=True, slots=True)
class VaultCounters:
    """Plain numbers since the start; `waiters` and `in_flight` are numbers at this moment.

    stale_served: hits that only an outage of the KMS excuses, by the longest time since a KMS gave the key. unwraps:
    answers to unwraps by result ("ok", or a FailureKind's value) and KMS key. evictions: by cause.
    """

    hits: int = 0
    misses: int = 0
    refreshes: int = 0
    waiters: int = 0
    in_flight: int = 0
    stale_served: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_AGE_NAMES, 0))
    unwraps: dict[tuple[str, str], int] = field(default_factory=dict)
    evictions: dict[str, int] = field(
        default_factory=lambda: {
            "capacity": 0,
            "expired": 0,
            "idle": 0,
            "replaced": 0,
            "flushed": 0,
            "denied": 0,
            "disabled": 0,
            "caller_denied": 0,
            "corrupt": 0,
        }
    )

    def serve_stale(self, age_s: float) -> None:
        """Count a hit on a key that a KMS last gave so long ago."""
        self.stale_served[_AGE_NAMES[bisect_left(_AGE_BOUNDS_S, age_s)]] += 1
