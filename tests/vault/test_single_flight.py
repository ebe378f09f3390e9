"""Many requests for one data key make one call to the KMS, and none of them can spoil it for the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.vault.errors import KeyDenied, KeyUnavailable
from kms.errors import Denied


async def test_a_thousand_waiters_make_one_call(open_house: Any) -> None:
    """All are served by the one answer."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        waiters = [tasks.create_task(house.vault.open(record)) for _ in range(1000)]
        await house.settle()
        assert house.vault.counters.waiters == 1000
        assert house.vault.counters.in_flight == 1
        house.kms[0].hold.set()
        assert {(await waiter).reveal() for waiter in waiters} == {b"value"}
        assert house.unwraps == 1
        assert (house.vault.counters.waiters, house.vault.counters.in_flight) == (0, 0)


async def test_cancelling_one_waiter_harms_no_other(open_house: Any) -> None:
    """Also when it is the one whose request started the call."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        first, *others = [tasks.create_task(house.vault.open(record)) for _ in range(10)]
        await house.settle()
        first.cancel()
        await house.settle()
        assert first.cancelled()
        house.kms[0].hold.set()
        assert [(await waiter).reveal() for waiter in others] == [b"value"] * 9
        assert house.unwraps == 1


async def test_a_call_outlives_all_its_waiters(open_house: Any) -> None:
    """What was asked for is kept for the next request, though those who asked have gone."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        waiter = tasks.create_task(house.vault.open(record))
        await house.settle()
        waiter.cancel()
        house.kms[0].hold.set()
        await house.settle()
        assert house.reveal(record) == b"value"


async def test_each_waiter_has_its_own_patience(open_house: Any) -> None:
    """A waiter gives up after wait_s; the call goes on and serves those who came later."""
    async with open_house(wait_s=0.05) as house:
        record = await flushed(house)
        with pytest.raises(KeyUnavailable) as caught:
            await house.vault.open(record)
        assert caught.value.reason == "timeout"
        house.kms[0].hold.set()
        assert (await house.vault.open(record)).reveal() == b"value"
        assert house.unwraps == 1


async def test_a_thousand_waiters_share_one_failure(open_house: Any) -> None:
    """One refusal is told to all, to each as an exception of its own."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        house.fail(Denied("no"))
        waiters = [tasks.create_task(refused(house, record)) for _ in range(1000)]
        await house.settle()
        house.kms[0].hold.set()
        assert len({id(await waiter) for waiter in waiters}) == 1000
        assert house.unwraps == 1


async def test_a_flush_outdates_the_call_under_way(open_house: Any) -> None:
    """The answer to a question from before the flush is not kept: those who wait ask again, and are served."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        waiter = tasks.create_task(house.vault.open(record))
        await house.settle()
        house.vault.flush()
        house.kms[0].hold.set()
        assert (await waiter).reveal() == b"value"
        assert house.unwraps == 2


async def test_who_comes_after_a_flush_does_not_wait_for_who_came_before(open_house: Any) -> None:
    """A request after the flush asks for itself, and is served while the earlier call still hangs."""
    async with open_house(wait_s=1) as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        earlier = tasks.create_task(house.vault.open(record))
        await house.settle()
        hanging, house.kms[0].hold = house.kms[0].hold, None
        house.vault.flush()
        assert (await house.vault.open(record)).reveal() == b"value"
        hanging.set()
        assert (await earlier).reveal() == b"value"


async def test_a_denial_after_the_flush_reaches_those_who_waited(open_house: Any) -> None:
    """Who waits across `key flush` is not served by a yes that is older than it."""
    async with open_house() as house, asyncio.TaskGroup() as tasks:
        record = await flushed(house)
        waiter = tasks.create_task(refused(house, record))
        await house.settle()
        first, house.kms[0].hold = house.kms[0].hold, asyncio.Event()
        house.vault.flush()
        first.set()
        await house.settle()
        house.fail(Denied("no"))
        house.kms[0].hold.set()
        assert isinstance(await waiter, KeyDenied)


async def test_the_keys_being_unwrapped_are_bounded(open_house: Any) -> None:
    """Beyond unwraps_max, a request for one more data key is refused at once."""
    async with open_house(unwraps_max=2) as house, asyncio.TaskGroup() as tasks:
        records = [await house.put(b"value", token="t1")]
        for number in (2, 3):
            await house.add_data_key(f"dk-{number}")
            records.append(await house.put(b"value", token=f"t{number}"))
        hold(house)
        waiters = [tasks.create_task(house.vault.open(record)) for record in records[:2]]
        await house.settle()
        with pytest.raises(KeyUnavailable) as caught:
            await house.vault.open(records[2])
        assert caught.value.reason == "too_many_unwraps"
        house.kms[0].hold.set()
        assert [(await waiter).reveal() for waiter in waiters] == [b"value"] * 2


async def test_stopping_releases_who_waits(open_house: Any) -> None:
    """When the vault closes, waiters are told so, and none hangs."""
    async with asyncio.TaskGroup() as tasks:
        async with open_house() as house:
            record = await flushed(house)
            waiters = [tasks.create_task(unavailable(house, record)) for _ in range(3)]
            await house.settle()
        assert [(await waiter).reason for waiter in waiters] == ["closing"] * 3


async def flushed(house: Any) -> Any:
    """A sealed version whose data key is not cached, and a KMS that holds its answer back."""
    record = await house.put(b"value")
    hold(house)
    return record


def hold(house: Any) -> None:
    house.vault.flush()
    house.kms[0].unwraps = 0
    house.kms[0].hold = asyncio.Event()


async def refused(house: Any, record: Any) -> KeyDenied:
    with pytest.raises(KeyDenied) as caught:
        await house.vault.open(record)
    return caught.value


async def unavailable(house: Any, record: Any) -> KeyUnavailable:
    with pytest.raises(KeyUnavailable) as caught:
        await house.vault.open(record)
    return caught.value
