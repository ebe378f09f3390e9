"""Standing in line for a place: the order of asking, giving up, hanging up, and a broker that is killed meanwhile."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import msgspec

from broker.admin.asked import NewPool
from broker.audit.entries import LeasesEnded
from storage.port import Commit, Delete
from storage.records import SeatRecord, TicketRecord

POOL = "github/bots"


async def in_line(house: Any, house_parts: Any) -> int:
    return len(await house_parts.every(house.storage, TicketRecord))


async def stands(house: Any, house_parts: Any, count: int) -> None:
    """Return when so many stand in line."""

    async def so_many() -> bool:
        return await in_line(house, house_parts) == count

    await house.until(so_many)


async def test_who_waits_is_served_in_the_order_of_asking(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """One at a time, as soon as the place is given back; and nothing is left of the line."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house, "ci-3") as three:
        lease = await one.lease(POOL)
        await two.send(type="lease", id=1, token=POOL, wait_s=60)
        await stands(house, house_parts, 1)
        await three.send(type="lease", id=1, token=POOL, wait_s=60)
        await stands(house, house_parts, 2)
        await one.ask("release", leases=[lease["lease"]])
        second = await two.answer(1)
        assert second["type"] == "granted"
        assert await three.silent()
        assert (await one.ask("lease", token=POOL))["code"] == "rate_limited"
        await two.ask("release", leases=[second["lease"]])
        assert (await three.answer(1))["type"] == "granted"
        await stands(house, house_parts, 0)
    assert len(await house_parts.every(house.storage, SeatRecord)) == 1


async def test_a_free_place_belongs_to_whoever_stands_in_line(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """A request that comes at the very moment does not overtake one that waits."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house, "ci-3") as three:
        lease = await one.lease(POOL)
        await two.send(type="lease", id=1, token=POOL, wait_s=60)
        await stands(house, house_parts, 1)
        await one.send(type="release", id=50, leases=[lease["lease"]])
        await three.send(type="lease", id=1, token=POOL)
        await one.send(type="lease", id=51, token=POOL)
        assert (await two.answer(1))["type"] == "granted"
        assert [(await three.answer(1))["code"], (await one.answer(51))["code"]] == ["rate_limited"] * 2


async def test_whoever_has_waited_long_enough_is_refused(
    *, open_house: Any, welcomed: Any, prepare: Any, pooled: Any, clock: Any, house_parts: Any
) -> None:
    """With `rate_limited`, and its turn is gone."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        await pooled(house, prepare, members=1)
        async with welcomed(house) as one, welcomed(house, "ci-2") as two:
            await one.lease(POOL)
            await two.send(type="lease", id=1, token=POOL, wait_s=20)
            await stands(house, house_parts, 1)
            await house.elapse(18)
            assert await two.silent()
            await house.elapse(3)
            assert (await two.answer(1))["code"] == "rate_limited"
            await stands(house, house_parts, 0)


async def test_whoever_takes_a_place_ends_the_lease_that_ran_out_there(
    *, open_house: Any, welcomed: Any, prepare: Any, pooled: Any, clock: Any
) -> None:
    """In one commit: else a resume whose replica's clock is behind, or a late renewal, would make two of one place."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        await pooled(house, prepare, members=1)
        async with welcomed(house) as one:
            first = await one.lease(POOL)
        row, now = await house.row(first["lease"]), clock.now()
        past = msgspec.structs.replace(row, rev=row.rev + 1, expires_at=now, due_at=now)
        await house.storage.commit(Commit(updates=[past]))
        async with welcomed(house, "ci-2") as two:
            assert (await two.lease(POOL))["value"] == first["value"]
            over = await house.row(first["lease"])
            assert (over.state, over.rev) == ("expired", past.rev + 1)
            ends = [entry.state for entry in await house.entries(LeasesEnded) if first["lease"] in entry.leases]
            assert ends == ["expired"]
        assert (await house.verified()).ok


async def test_a_turn_whose_ticket_is_gone_is_served_all_the_same(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """As when its replica was taken for dead: it stands in line anew, and does not wait in vain."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        lease = await one.lease(POOL)
        await two.send(type="lease", id=1, token=POOL, wait_s=120)
        await stands(house, house_parts, 1)
        (row,) = await house_parts.every(house.storage, TicketRecord)
        await house.storage.commit(Commit(deletes=[Delete(TicketRecord, row.key, row.rev)]))
        await one.ask("release", leases=[lease["lease"]])
        assert (await two.answer(1, within_s=5))["type"] == "granted"


async def test_seats_that_a_pool_has_no_more_are_forgotten_when_they_are_free(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """A place above the bound that is taken still counts; nothing is left to be read for ever."""
    pools = await pooled(house, prepare, members=1, leases_max=2)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house, "ci-3") as three:
        leases = {worker: (await worker.lease(POOL))["lease"] for worker in (one, two)}
        seats = {row.lease: row for row in await house_parts.every(house.storage, SeatRecord)}
        above = next(worker for worker in leases if seats[leases[worker]].number == 1)
        (within,) = {one, two} - {above}
        await pools.define(NewPool(token=POOL, members=["bot/1"], leases_max=1), actor="admin:root")
        await house.settled()
        await within.ask("release", leases=[leases[within]])
        assert (await three.ask("lease", token=POOL))["code"] == "rate_limited"
        await above.ask("release", leases=[leases[above]])
        await three.lease(POOL)
        assert [row.number for row in await house_parts.every(house.storage, SeatRecord)] == [0]


async def test_a_session_that_hangs_up_leaves_the_line(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """The next in line is served in its stead."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-3") as three:
        lease = await one.lease(POOL)
        async with welcomed(house, "ci-2") as two:
            await two.send(type="lease", id=1, token=POOL, wait_s=300)
            await stands(house, house_parts, 1)
            await three.send(type="lease", id=1, token=POOL, wait_s=300)
            await stands(house, house_parts, 2)
        await stands(house, house_parts, 1)
        await one.ask("release", leases=[lease["lease"]])
        assert (await three.answer(1))["type"] == "granted"


async def test_a_greedy_session_has_one_turn(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """Two hundred requests of one session stand in line as one; served, all are answered with the same lease."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-2") as greedy, welcomed(house, "ci-3") as three:
        lease = await one.lease(POOL)
        for number in range(200):
            await greedy.send(type="lease", id=number, token=POOL, wait_s=60)
        await stands(house, house_parts, 1)
        await three.send(type="lease", id=1, token=POOL, wait_s=60)
        await stands(house, house_parts, 2)
        await one.ask("release", leases=[lease["lease"]])
        answers = [await greedy.answer(number) for number in range(200)]
        assert len({answer["lease"] for answer in answers}) == 1
        await greedy.ask("release", leases=[answers[0]["lease"]])
        assert (await three.answer(1))["type"] == "granted"


async def test_a_killed_broker_loses_no_place_for_ever(
    *, open_house: Any, config: Any, serving: Any, wire: Any, prepare: Any, pooled: Any, tmp_path: Any
) -> None:
    """After a kill -9 the place is free when its lease has run out, and old turns hold up nobody."""
    async with open_house() as house:
        await prepare(house)
        await pooled(house, prepare, members=1)
        who = dict(house.workers)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(serving(config, tmp_path / "one.log"))
        one = await stack.enter_async_context(wire.dial(broker.url))
        two = await stack.enter_async_context(wire.dial(broker.url))
        assert (await one.handshake(who["ci-1"]))["type"] == "welcome"
        assert (await two.handshake(who["ci-2"]))["type"] == "welcome"
        first = await one.lease(POOL, ttl_s=5)
        await two.send(type="lease", id=1, token=POOL, wait_s=300)
        assert await two.silent(1)
        await broker.kill()
        broker = await stack.enter_async_context(serving(config, tmp_path / "two.log"))
        three = await stack.enter_async_context(wire.dial(broker.url))
        assert (await three.handshake(who["ci-3"]))["type"] == "welcome"
        second = await three.lease(POOL, wait_s=120)
        assert second["expires_at"] - second["ttl_s"] >= first["expires_at"]
