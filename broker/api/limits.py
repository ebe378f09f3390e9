"""How often one source or one credential may ask: token buckets in a table of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import RateLimited


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """`burst` requests at once, then `per_s` a second."""

    per_s: float
    burst: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiLimits:
    """credential, address: requests. failures: refused credentials and codes, by address. keys_max: size of a table."""

    credential: Rate = Rate(per_s=200.0, burst=1000)
    address: Rate = Rate(per_s=400.0, burst=2000)
    failures: Rate = Rate(per_s=0.2, burst=20)
    keys_max: int = 10_000


class Buckets:
    """One bucket for each key, full at first. Over `keys_max` the longest untouched key is forgotten.

    Forgetting fills a bucket: whoever has so many addresses had as many full buckets anyway.
    """

    def __init__(self, *, rate: Rate, keys_max: int, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._keys_max = keys_max
        self._monotonic = monotonic
        self._levels: dict[str, tuple[float, float]] = {}

    def check(self, key: str, what: str) -> None:
        """Return if there is one in the key's bucket. RateLimited: it is empty; says what there is too much of."""
        now = self._monotonic()
        level = self._level(key, now)
        self._keep(key, level, now)
        if level < 1.0:
            raise RateLimited(
                f"too many {what}: {self._rate.burst} at once and {self._rate.per_s:g} a second are allowed",
                retry_after_s=(1.0 - level) / self._rate.per_s,
            )

    def take(self, key: str, what: str) -> None:
        """Take one out of the key's bucket. RateLimited: as `check` says it; nothing was taken."""
        self.check(key, what)
        level, now = self._levels[key]
        self._levels[key] = (level - 1.0, now)

    def __len__(self) -> int:
        return len(self._levels)

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.pop(key, (float(self._rate.burst), now))
        return min(float(self._rate.burst), level + (now - at) * self._rate.per_s)

    def _keep(self, key: str, level: float, now: float) -> None:
        while len(self._levels) >= self._keys_max:
            del self._levels[next(iter(self._levels))]
        self._levels[key] = (level, now)
