"""The way to a KMS key: a bounded number of calls, at a bounded rate, and none while it does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.vault.breaker import Breaker, BreakerState
from broker.vault.errors import KeyDenied, KeyUnavailable
from broker.vault.pacing import Pace
from kms.errors import Denied, Unavailable


async def test_calls_at_a_time_are_bounded(open_house: Any) -> None:
    """However many data keys are wanted at once, at most calls_max calls are under way; all are served in the end."""
    async with open_house(calls_max=3) as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 10)
        house.kms[0].hold = asyncio.Event()
        house.kms[0].in_flight_max = 0
        waiters = [tasks.create_task(house.vault.open(record)) for record in records]
        await house.settle()
        assert house.kms[0].in_flight == 3
        house.kms[0].hold.set()
        assert [(await waiter).reveal() for waiter in waiters] == [b"value"] * 10
        assert house.kms[0].in_flight_max == 3


async def test_waiting_for_a_place_ends(open_house: Any) -> None:
    """When all places stay taken for queue_s, the next request is refused; the KMS key is not blamed for it."""
    async with open_house(calls_max=1, queue_s=0.05) as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 2)
        house.kms[0].hold = asyncio.Event()
        first = tasks.create_task(house.vault.open(records[0]))
        await house.settle()
        with pytest.raises(KeyUnavailable):
            await house.vault.open(records[1])
        assert house.vault.health()[0].failures == 0
        house.kms[0].hold.set()
        assert (await first).reveal() == b"value"


async def test_the_rate_of_calls_is_bounded(open_house: Any) -> None:
    """Past the burst, calls come at the rate; those that would wait past queue_s are refused without a call."""
    async with open_house(rate_per_s=1, burst=12) as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 4)  # each data key costs a wrap, a read-back and an unwrap
        assert house.unwraps <= 12
        asked = house.unwraps
        waiters = [tasks.create_task(outcome(house, record)) for record in records]
        await house.settle()
        assert house.unwraps == asked
        await house.clock.advance(1)
        assert house.unwraps == asked + 1
        await house.clock.advance(1)
        assert house.unwraps == asked + 2
        assert sorted([await waiter for waiter in waiters]) == ["ok", "ok", "unavailable", "unavailable"]
        await house.clock.advance(1)
        late = next(record for record in records if house.reveal(record) is None)
        assert await outcome(house, late) == "ok"  # at once: those refused have not used up the rate


async def test_a_kms_that_does_not_answer_is_left_alone(open_house: Any) -> None:
    """After breaker_failures unanswered calls in a row, no call is made until the breaker lets one probe through."""
    async with open_house(jitter=lambda: 0.0) as house:
        records = await sealed(house, 8)
        asked = house.unwraps
        house.fail(Unavailable("away"))
        for record in records:
            assert await outcome(house, record) == "unavailable"
        assert house.unwraps == asked + 5
        assert house.vault.health()[0].state is BreakerState.OPEN
        house.fail(None)
        await house.clock.advance(1.01)
        assert await outcome(house, records[7]) == "ok"
        assert house.vault.health()[0].state is BreakerState.CLOSED


async def test_one_probe_at_a_time_finds_out(open_house: Any) -> None:
    """When the breaker's time is up, one request goes through and the others are refused until it has its answer."""
    async with open_house(jitter=lambda: 0.0) as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 8)
        house.fail(Unavailable("away"))
        for record in records[:5]:
            await outcome(house, record)
        house.fail(None)
        await house.clock.advance(1.01)
        house.kms[0].hold = asyncio.Event()
        probe = tasks.create_task(outcome(house, records[6]))
        await house.settle()
        assert await outcome(house, records[7]) == "unavailable"
        house.kms[0].hold.set()
        assert await probe == "ok"


async def test_a_cancelled_probe_makes_room_for_the_next(open_house: Any) -> None:
    """When the one request that may find out is cancelled, the next one may."""
    async with open_house(jitter=lambda: 0.0) as house, asyncio.TaskGroup() as tasks:
        records = await sealed(house, 6)
        house.fail(Unavailable("away"))
        for record in records[:5]:
            await outcome(house, record)
        house.fail(None)
        await house.clock.advance(1.01)
        house.kms[0].hold = asyncio.Event()
        probe = tasks.create_task(house.vault.probe(lately_s=0))
        await house.settle()
        probe.cancel()
        await house.settle()
        house.kms[0].hold = None
        assert await outcome(house, records[5]) == "ok"


async def test_a_refusal_is_an_answer_to_the_breaker(open_house: Any) -> None:
    """A KMS that says no is not away: its refusals are asked for, and never turn into "retry later"."""
    async with open_house() as house:
        records = await sealed(house, 8)
        house.fail(Denied("no"))
        for record in records:
            with pytest.raises(KeyDenied):
                await house.vault.open(record)
        assert house.vault.health()[0].state is BreakerState.CLOSED


async def test_health_tells_each_kms_key(open_house: Any) -> None:
    """Which answered when, and what the last call led to, in the order of the configuration."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error = Unavailable("away")
        await house.clock.advance(10)
        await house.vault.open(record)
        first, second = house.vault.health()
        assert (first.kms_key, first.failures, first.last_error) == (house.kms[0].uri, 1, "kms_unavailable")
        assert first.answered_s_ago == 10
        assert (second.answered_s_ago, second.last_error) == (0, "")


async def test_probing_asks_those_that_did_not_do_well_lately(open_house: Any) -> None:
    """One KMS key that does not answer is asked again each time, one that did well is not, until that is long ago."""
    async with open_house(keys=2, check_s=0.05) as house:
        await house.clock.advance(61)
        house.kms[0].hold = asyncio.Event()
        assert [known.well() for known in await house.vault.probe(lately_s=60)] == [False, True]
        house.kms[0].hold = None
        await house.clock.advance(30)
        assert [known.answered_s_ago for known in await house.vault.probe(lately_s=60)] == [0, 30]
        await house.clock.advance(31)
        assert [known.answered_s_ago for known in await house.vault.probe(lately_s=60)] == [31, 0]


def test_the_breaker_waits_longer_after_each_failed_probe() -> None:
    """From open_s, doubling, to open_max_s; one answer resets it."""
    breaker = Breaker(failures_max=1, open_s=1, open_max_s=4, jitter=lambda: 0.0)
    now = 0.0
    for wait_s in (1, 2, 4, 4):
        assert breaker.admit(now)
        breaker.failed(now)
        assert not breaker.admit(now + wait_s - 0.01)
        now += wait_s
    assert breaker.admit(now)
    breaker.answered()
    assert breaker.admit(now)
    breaker.failed(now)
    assert breaker.admit(now + 1)


def test_an_abandoned_probe_makes_room_for_another() -> None:
    """A probe whose caller was cancelled tells nothing, and must not keep the breaker shut for ever."""
    breaker = Breaker(failures_max=1, open_s=1, open_max_s=4, jitter=lambda: 0.0)
    breaker.admit(0)
    breaker.failed(0)
    assert breaker.admit(1)
    assert not breaker.admit(1)
    breaker.abandoned()
    assert breaker.admit(1)


def test_the_pace_allows_a_burst_and_then_its_rate() -> None:
    """Full at first; refilled as time passes, up to the burst; a place given back is free again."""
    pace = Pace(rate_per_s=10, burst=2)
    assert [pace.take(0), pace.take(0), pace.take(0), pace.take(0)] == pytest.approx([0, 0, 0.1, 0.2])
    pace.give_back()
    assert pace.take(0) == pytest.approx(0.2)
    assert [pace.take(100), pace.take(100), pace.take(100)] == pytest.approx([0, 0, 0.1])


async def sealed(house: Any, count: int) -> list[Any]:
    """`count` versions, each under a data key of its own, and nothing cached."""
    records = [await house.put(b"value", token="t1")]
    for number in range(2, count + 1):
        await house.add_data_key(f"dk-{number}")
        records.append(await house.put(b"value", token=f"t{number}"))
    house.vault.flush()
    return records


async def outcome(house: Any, record: Any) -> str:
    try:
        await house.vault.open(record)
    except KeyUnavailable:
        return "unavailable"
    return "ok"
