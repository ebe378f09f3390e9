"""How often a KMS is asked: at a cold start, day by day, in a brown-out, and when that ends."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from broker.vault.breaker import BreakerState
from kms.errors import Unavailable

SOFT_S = 300
RATE, BURST = 5, 10


class BrownOut:
    """Stands before a KMS key: each unwrap takes slow_s of the house's clock, and a share of them fails.

    asked: the instants of the calls, by data key.
    """

    def __init__(self, key: Any, clock: Any) -> None:
        self._key = key
        self._clock = clock
        self.slow_s = 2.0
        self.failing = 0.95
        self.asked: list[tuple[float, str]] = []
        self.alone = True
        self._in_flight = 0

    async def unwrap(self, wrap: Any, context: Any, caller: Any = None) -> bytes:
        self.asked.append((self._clock.monotonic(), context["data_key"]))
        self._in_flight += 1
        self.alone = self.alone and self._in_flight == 1
        try:
            await self._clock.sleep(self.slow_s)
            if share(len(self.asked)) < self.failing:
                raise Unavailable("brown-out")
            return await self._key.unwrap(wrap, context, caller)
        finally:
            self._in_flight -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)


async def test_a_cold_start_asks_once_for_each_data_key(open_house: Any) -> None:
    """200 workers that want 10 tokens each, under 10 data keys, all at once and nothing cached: 10 unwraps."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 10)
        house.vault.flush()
        brown_out = before(house)
        brown_out.failing = 0.0
        wanted = [tasks.create_task(house.vault.open(record)) for _ in range(200) for record in records]
        await house.settle()
        await house.clock.advance(brown_out.slow_s)
        assert {(await each).reveal() for each in wanted} == {b"value"}
        assert Counter(data_key for _, data_key in brown_out.asked) == Counter(f"dk-{n}" for n in range(1, 11))


async def test_a_cold_start_in_a_brown_out_asks_once_at_a_time(open_house: Any) -> None:
    """However many wait and come again, no data key is asked for twice at once, and all are served in the end."""
    async with open_house(jitter=rolling()) as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 10)
        house.vault.flush()
        brown_out = before(house)
        brown_out.failing = 0.5

        async def persist(record: Any) -> bytes:
            while True:
                try:
                    return (await house.vault.open(record)).reveal()
                except Exception as error:  # noqa: BLE001 - whatever it says, the worker comes again
                    await house.clock.sleep(getattr(error, "retry_after_s", 1.0) or 1.0)

        wanted = [tasks.create_task(persist(record)) for _ in range(50) for record in records]
        for _ in range(300):
            await house.clock.advance(1)
        assert {(await each) for each in wanted} == {b"value"}
        assert overlaps(brown_out.asked, brown_out.slow_s) == []


async def test_in_the_steady_state_a_data_key_costs_one_call_a_soft_ttl(open_house: Any) -> None:
    """Over two hours of use no data key is asked for more often than its soft TTL passes, jitter included."""
    async with open_house(jitter=rolling()) as house:
        records = await sealed(house, 4)
        brown_out = before(house)
        brown_out.failing, brown_out.slow_s = 0.0, 0.05
        hours = 2
        for _ in range(hours * 360):
            await house.clock.advance(10)
            assert all(house.reveal(record) is not None for record in records)
        asked = Counter(data_key for _, data_key in brown_out.asked)
        assert len(asked) == 4
        assert all(count <= hours * 3600 / SOFT_S for count in asked.values()), asked


async def test_in_a_brown_out_cached_keys_serve_without_waiting(open_house: Any) -> None:
    """For most of an hour, with a KMS at 2 s and 95 % errors, every request is served without an await, and calls
    stay within the token bucket.
    """
    async with open_house(jitter=rolling(), rate_per_s=RATE, burst=BURST, soft_ttl_s=60) as house:
        records = await sealed(house, 40)
        brown_out = before(house)
        for _ in range(340):
            await house.clock.advance(10)
            assert all(house.reveal(record) is not None for record in records)
        assert (house.vault.counters.misses, house.vault.counters.waiters) == (0, 0)
        instants = [instant for instant, _ in brown_out.asked]
        assert len(instants) > 40
        assert worst_excess(instants) <= BURST


async def test_when_a_brown_out_ends_each_data_key_is_asked_for_once(open_house: Any) -> None:
    """The first answers are no signal to ask for everything again: one call proves one data key."""
    async with open_house(jitter=rolling(), rate_per_s=RATE, burst=BURST, soft_ttl_s=600) as house:
        records = await sealed(house, 40)
        brown_out = before(house)
        brown_out.failing = 1.0
        await house.clock.advance(1200)
        brown_out.failing, begun = 0.0, len(brown_out.asked)
        await house.clock.advance(120)
        proved = [data_key for instant, data_key in brown_out.asked[begun:]]
        assert Counter(proved) == Counter(f"dk-{number}" for number in range(1, 41))
        assert worst_excess([instant for instant, _ in brown_out.asked]) <= BURST
        assert all(house.reveal(record) is not None for record in records)
        assert house.vault.oldest_key_s() < 120


async def test_while_a_kms_is_silent_one_call_at_a_time_finds_out(open_house: Any) -> None:
    """With forty data keys due, a KMS key that does not answer gets lone probes, ever further apart."""
    async with open_house(jitter=rolling(), soft_ttl_s=60) as house:
        await sealed(house, 40)
        brown_out = before(house)
        brown_out.failing = 1.0
        await house.clock.advance(120)
        brown_out.asked.clear()
        brown_out.alone = True
        await house.clock.advance(600)
        assert house.vault.health()[0].state is not BreakerState.CLOSED
        assert brown_out.alone
        assert 600 / 52 <= len(brown_out.asked) <= 600 / 30


def before(house: Any) -> BrownOut:
    """A brown-out before the house's one KMS key, from now on."""
    brown_out = BrownOut(house.kms[0]._inner, house.clock)
    house.kms[0]._inner = brown_out
    house.vault.counters.misses = 0
    return brown_out


async def sealed(house: Any, count: int) -> list[Any]:
    """`count` values, each under a data key of its own, all of them cached."""
    records = [await house.put(b"value", token="t1")]
    for number in range(2, count + 1):
        await house.clock.advance(1)  # each costs three calls, and the rate may be small
        await house.add_data_key(f"dk-{number}")
        records.append(await house.put(b"value", token=f"t{number}"))
    return records


def share(turn: int) -> float:
    """From 0 to 1, without a pattern, and the same in each run."""
    return int.from_bytes(hashlib.sha256(str(turn).encode()).digest()[:8], "big") / 2**64


def rolling() -> Callable[[], float]:
    """A jitter that is spread evenly."""
    turns = itertools.count()
    return lambda: share(next(turns))


def overlaps(asked: list[tuple[float, str]], slow_s: float) -> list[tuple[float, str]]:
    """The calls for a data key that was being asked for."""
    until: dict[str, float] = {}
    found = []
    for instant, data_key in asked:
        if instant < until.get(data_key, 0.0):
            found.append((instant, data_key))
        until[data_key] = instant + slow_s
    return found


def worst_excess(instants: list[float]) -> float:
    """Of all spans between two calls, the most calls that any had beyond its length times the rate."""
    lowest, worst = float("inf"), 0.0
    for number, instant in enumerate(instants):
        lowest = min(lowest, number - instant * RATE)
        worst = max(worst, number + 1 - instant * RATE - lowest)
    return worst
