"""Pools under a storm of workers, on one replica and on two: no member has too many leases, and there is one line."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from storage.records import ReplicaRecord, TicketRecord

POOL = "github/bots"
WORKERS = 12
ROUNDS = 6
PLACES = 2


async def in_line(house: Any, house_parts: Any, count: int) -> None:
    """Return when so many stand in line."""

    async def so_many() -> bool:
        return len(await house_parts.every(house.storage, TicketRecord)) == count

    await house.until(so_many)


async def storm(houses: Sequence[Any], welcomed: Any) -> None:
    """Workers lease and release as fast as they are served; the record must show no member with too many at once."""
    served: Counter[str] = Counter()

    async def work(house: Any, name: str) -> None:
        async with welcomed(house, name) as worker:
            for _ in range(ROUNDS):
                lease = await worker.lease(POOL, wait_s=120)
                served[name] += 1
                await worker.ask("release", leases=[lease["lease"]])

    async with asyncio.TaskGroup() as tasks:
        for number in range(WORKERS):
            tasks.create_task(work(houses[number % len(houses)], f"ci-{number + 1}"))
    assert set(served.values()) == {ROUNDS}
    rows = [row for row in await houses[0].leases() if row.token == POOL]
    assert len(rows) == WORKERS * ROUNDS
    for member in {row.member for row in rows}:
        moments = [(row.granted_at, 1) for row in rows if row.member == member]
        moments += [(row.ended_at, -1) for row in rows if row.member == member]
        live = 0
        for _, step in sorted(moments):
            live += step
            assert live <= PLACES
    assert (await houses[0].verified()).ok


async def test_no_member_ever_has_more_leases_than_places(pair: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """A storm of workers on both replicas, held against the record: who had which member from when to when."""
    one, two = pair
    await pooled(one, prepare, members=3, leases_max=PLACES, workers=WORKERS)
    two.workers = one.workers
    await two.settled()
    await storm([one, two], welcomed)


async def test_the_bound_holds_on_sqlite_too(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """The same storm on one broker and a file."""
    await pooled(house, prepare, members=3, leases_max=PLACES, workers=WORKERS)
    await storm([house], welcomed)


async def test_one_line_for_both_replicas(
    pair: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """Who asked first is served first, wherever he asked."""
    one, two = pair
    await pooled(one, prepare, members=1, workers=7)
    two.workers = one.workers
    await two.settled()
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(welcomed((one, two)[number % 2], f"ci-{number + 1}")) for number in range(7)
        ]
        lease = await workers[0].lease(POOL)
        for number, worker in enumerate(workers[1:], 1):
            await worker.send(type="lease", id=1, token=POOL, wait_s=120)
            await in_line(one, house_parts, number)
        await workers[0].ask("release", leases=[lease["lease"]])
        for number, worker in enumerate(workers[1:], 1):
            granted = await worker.answer(1)
            assert granted["type"] == "granted"
            await in_line(one, house_parts, 6 - number)
            await worker.ask("release", leases=[granted["lease"]])


async def test_a_report_here_rests_the_member_there(pair: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """The other replica does not lease what this one heard was limited."""
    one, two = pair
    await pooled(one, prepare, members=2, leases_max=10)
    two.workers = one.workers
    await two.settled()
    async with welcomed(one) as here, welcomed(two, "ci-2") as there, welcomed(two, "ci-3") as third:
        lease = await here.lease(POOL)
        await here.send(type="report", lease=lease["lease"], event="rate_limited", retry_after_s=600)
        await here.ask("renew", leases=[lease["lease"]])
        await two.settled()
        values = {(await there.lease(POOL))["value"], (await third.lease(POOL))["value"]}
        assert values.isdisjoint({lease["value"]})


async def test_a_dead_replicas_turn_does_not_hold_up_the_line(
    pair: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """When it is buried, those behind it are served, although its turn would last for minutes."""
    one, two = pair
    await pooled(one, prepare, members=1)
    now = one.broker.clock.now()
    dead = ReplicaRecord(
        instance="three",
        life="x",
        release="0",
        started_at=now,
        seen_at=now,
        position=0,
        ended_at=now + timedelta(seconds=1),
    )
    ticket = TicketRecord(
        token=POOL,
        ticket="0" * 32,
        worker="ci-9",
        session="gone",
        instance="three",
        asked_at=now,
        until=now + timedelta(seconds=300),
    )
    await one.storage.commit(house_parts.Commit(inserts=[ticket]))
    two.workers = one.workers
    async with welcomed(two, "ci-2") as worker:
        assert (await worker.ask("lease", token=POOL))["code"] == "rate_limited"
        await worker.send(type="lease", id=7, token=POOL, wait_s=120)
        await in_line(one, house_parts, 2)
        await one.storage.commit(house_parts.Commit(inserts=[dead]))
        assert (await worker.answer(7))["type"] == "granted"
