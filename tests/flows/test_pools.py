"""Pools over real sockets: which member a lease gets, and what becomes of it when the pool or a member changes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.admin.asked import NewPool
from broker.admin.errors import InUse, WrongKind
from broker.audit.entries import LeaseGranted
from storage.port import Commit
from storage.records import TicketRecord
from tokenbroker_client import RateLimited, connect
from tokenbroker_client.keys import WorkerKey

ROOT = "admin:root"
POOL = "github/bots"


async def test_each_lease_gets_the_least_loaded_member(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """A grant for the pool suffices; the answer names the pool alone, the record the member too."""
    await pooled(house, prepare)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house, "ci-3") as three:
        first, second = await one.lease(POOL), await two.lease(POOL)
        assert {first["value"], second["value"]} == {"value of bot/1", "value of bot/2"}
        assert "bot/" not in str({**first, "value": ""})
        refused = await three.ask("lease", token=POOL)
        assert (refused["code"], refused["retry_after_s"]) == ("rate_limited", 1.0)
        assert "bot/" not in refused["message"]
        assert (await one.ask("lease", token="bot/1"))["code"] == "denied"
        assert (await one.lease(POOL))["lease"] == first["lease"]
        await one.ask("release", leases=[first["lease"]])
        assert (await three.lease(POOL))["value"] == first["value"]
    granted = await house.entries(LeaseGranted)
    assert sorted(entry.member for entry in granted) == ["bot/1", "bot/1", "bot/1", "bot/2"]
    assert (await house.row(first["lease"])).member == "bot/1"
    assert (await house.verified()).ok


async def test_without_a_bound_leases_are_spread(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """Of six leases, asked for at once, each of three members has two."""
    await pooled(house, prepare, members=3, leases_max=0, workers=6)
    async with (
        welcomed(house) as one,
        welcomed(house, "ci-2") as two,
        welcomed(house, "ci-3") as three,
        welcomed(house, "ci-4") as four,
        welcomed(house, "ci-5") as five,
        welcomed(house, "ci-6") as six,
    ):
        workers = (one, two, three, four, five, six)
        for worker in workers:
            await worker.send(type="lease", id=1, token=POOL)
        values = sorted([(await worker.answer(1))["value"] for worker in workers])
        assert values == sorted([f"value of bot/{number}" for number in (1, 1, 2, 2, 3, 3)])


async def test_a_token_is_its_own_only_member(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """An exclusive token keeps its name and its versions; who held it before the bound asks again."""
    await pooled(house, prepare)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        before = await one.lease("github/ci")
        await house.services.pools.define(NewPool(token="github/ci", members=["github/ci"], leases_max=1), actor=ROOT)
        assert (await one.push(within_s=5))["leases"] == [before["lease"]]
        lease = await one.lease("github/ci")
        assert (await two.ask("lease", token="github/ci"))["code"] == "rate_limited"
        await house.put("github/ci", b"rotated")
        pushed = await one.push(within_s=5)
        assert (pushed["lease"], pushed["token"], pushed["value"]) == (lease["lease"], "github/ci", "rotated")
        await house.services.pools.delete("github/ci", actor=ROOT)
        await house.settled()
        assert (await two.lease("github/ci"))["value"] == "rotated"
        assert (await one.lease("github/ci"))["lease"] == lease["lease"]


async def test_a_members_rotation_reaches_whoever_has_it(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """Under the pool's name, and only those; renewals go on."""
    await pooled(house, prepare)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        first, _ = await one.lease(POOL), await two.lease(POOL)
        await house.put("bot/1", b"new")
        pushed = await one.push(within_s=5)
        assert (pushed["lease"], pushed["token"]) == (first["lease"], POOL)
        assert (pushed["value"], pushed["version"]) == ("new", 2)
        assert await two.silent()
        renewed = await one.ask("renew", leases=[first["lease"]])
        assert [live["lease"] for live in renewed["leases"]] == [first["lease"]]


@pytest.mark.parametrize("change", ["left", "disabled"])
async def test_leases_of_a_lost_member_are_revoked(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, change: str
) -> None:
    """A member that left its pool or is disabled takes its leases with it; the pool gives another one."""
    pools = await pooled(house, prepare)
    async with welcomed(house) as one:
        first = await one.lease(POOL)
        if change == "left":
            await pools.remove_member(POOL, "bot/1", actor=ROOT)
        else:
            await house.services.tokens.disable("bot/1", actor=ROOT)
        pushed = await one.push(within_s=5)
        assert (pushed["leases"], pushed["reason"]) == ([first["lease"]], "member_left")
        assert (await one.lease(POOL))["value"] == "value of bot/2"


async def test_a_resumed_lease_keeps_its_member(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """A new session takes the lease over with its place; it gets the member's newer value."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one:
        first = await one.lease(POOL)
    await house.put("bot/1", b"new")
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        resumed = await one.ask("resume", leases=[{"lease": first["lease"], "version": 1}])
        assert [(frame["token"], frame["value"]) for frame in resumed["rotated"]] == [(POOL, "new")]
        assert (await two.ask("lease", token=POOL))["code"] == "rate_limited"


@pytest.mark.parametrize("change", ["member", "pool"])
async def test_an_offline_holder_keeps_its_place_while_a_member_or_the_pool_goes_and_comes_back(
    *, house: Any, welcomed: Any, prepare: Any, pooled: Any, change: str
) -> None:
    """It may resume then; so nobody else has the place, or two would hold what only one may."""
    pools = await pooled(house, prepare)
    await pools.quarantine(POOL, "bot/2", reason="kept", actor=ROOT)
    async with welcomed(house) as one:
        first = await one.lease(POOL)
    if change == "member":
        await pools.remove_member(POOL, "bot/1", actor=ROOT)
        await pools.add_member(POOL, "bot/1", actor=ROOT)
    else:
        await pools.delete(POOL, actor=ROOT)
        await pools.define(NewPool(token=POOL, members=["bot/1"], leases_max=1), actor=ROOT)
    await house.settled()
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        assert (await two.ask("lease", token=POOL))["code"] == "rate_limited"
        resumed = await one.ask("resume", leases=[{"lease": first["lease"], "version": 1}])
        assert [live["lease"] for live in resumed["live"]] == [first["lease"]]
        await one.ask("release", leases=[first["lease"]])
        assert (await two.lease(POOL))["value"] == first["value"]


async def test_a_pool_has_no_value_of_its_own(house: Any, welcomed: Any, prepare: Any, pooled: Any) -> None:
    """Putting one is refused, as is deleting a member, and asking for a previous version."""
    await pooled(house, prepare)
    with pytest.raises(WrongKind, match="is a pool"):
        await house.put(POOL, b"x")
    with pytest.raises(InUse, match="member of pool github/bots"):
        await house.services.tokens.delete("bot/1", actor=ROOT)
    with pytest.raises(InUse, match="token pool delete"):
        await house.services.tokens.delete(POOL, actor=ROOT)
    async with welcomed(house) as one:
        assert (await one.ask("lease", token=POOL, stage="previous"))["code"] in {"denied", "not_found"}


async def test_a_pool_that_is_deleted_takes_its_leases_with_it(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """Nothing of it is left, and asking for it is denied like any name that nobody has."""
    pools = await pooled(house, prepare)
    async with welcomed(house) as one:
        first = await one.lease(POOL)
        await pools.delete(POOL, actor=ROOT)
        assert (await one.push(within_s=5))["leases"] == [first["lease"]]
        await house.settled()
        assert (await one.ask("lease", token=POOL))["code"] == "denied"


async def test_the_kill_switch_of_a_member_takes_its_value_from_the_pool(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """Revoking a member's leases ends those of the pool that have its value, and no others."""
    await pooled(house, prepare)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        first, _ = await one.lease(POOL), await two.lease(POOL)
        report = await house.broker.leases.revoke(
            lease=None, token="bot/1", worker=None, reason="leaked", actor=ROOT, wait_s=0
        )
        assert [ref.lease for ref in report.revoked] == [first["lease"]]
        assert (await one.push(within_s=5))["reason"] == "leaked"
        assert await two.silent()


async def test_an_offline_holder_is_found_by_a_member_that_left_the_pool(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """Who has this very key, now and in the past, is told and ended by the member's name, whatever the pool is now."""
    pools = await pooled(house, prepare)
    async with welcomed(house) as one:
        lease = await one.lease(POOL)
    async with welcomed(house, "ci-2") as two:
        await two.lease(POOL)
        await pools.remove_member(POOL, "bot/1", actor=ROOT)
        leases, now = house.broker.leases, house.broker.clock.now()
        for at in (None, now):
            page = await leases.list_leases(
                token="bot/1", worker=None, at=at, include_ended=False, after=None, limit=1000
            )
            assert [(row.lease, row.token, row.member) for row in page.records] == [(lease["lease"], POOL, "bot/1")]
        report = await leases.revoke(lease=None, token="bot/1", worker=None, reason="leaked", actor=ROOT, wait_s=0)
        assert [ref.member for ref in report.revoked] == ["bot/1"]
        assert [(each.ref.worker, each.state) for each in report.missing] == [("ci-1", "offline")]
        told = await leases.timeline(token="bot/1", worker=None, since=None, until=None, after=None, limit=1000)
        assert [(each.event, each.ref.member) for each in told.events] == [("granted", "bot/1"), ("revoked", "bot/1")]
        assert await two.silent()


async def test_a_lease_whose_row_was_given_another_member_is_let_go(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """By a hand at the database; its session lives, gets no other value, and is counted nowhere."""
    await pooled(house, prepare, members=2, leases_max=0)
    async with welcomed(house) as one:
        lease = await one.lease(POOL)
        row = await house.row(lease["lease"])
        other = {"bot/1": "bot/2", "bot/2": "bot/1"}[row.member]
        forged = msgspec.structs.replace(row, rev=row.rev + 1, member=other)
        await house.storage.commit(Commit(updates=[forged]))
        await one.send(type="report", lease=lease["lease"], event="rate_limited")
        await house.until(lambda: not house.broker.context.holdings.loads(["bot/1", "bot/2"]).total())
        answer = await one.ask("renew", leases=[lease["lease"]])
        assert [gone["lease"] for gone in answer["gone"]] == [lease["lease"]]
        assert (await one.lease(POOL))["lease"] != lease["lease"]
    async with welcomed(house) as one:
        assert (await one.lease(POOL))["value"].startswith("value of bot/")


async def test_the_client_library_stands_in_line(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """Until a place is free; without `wait_s` it hears at once that none is."""
    await pooled(house, prepare, members=1)
    key = WorkerKey(house.workers["ci-2"].key, worker="ci-2")
    async with welcomed(house) as one, connect(house.url, key=key) as broker, asyncio.TaskGroup() as tasks:
        lease = await one.lease(POOL)
        with pytest.raises(RateLimited):
            async with broker.lease(POOL):
                pass
        asking = tasks.create_task(_leased(broker))

        async def stands() -> bool:
            return len(await house_parts.every(house.storage, TicketRecord)) == 1

        await house.until(stands)
        await one.ask("release", leases=[lease["lease"]])
        assert await asking == "value of bot/1"


async def _leased(broker: Any) -> str:
    async with broker.lease(POOL, wait_s=60) as lease:
        value: str = lease.value
        return value


async def test_a_replica_that_stops_turns_away_who_waits(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, house_parts: Any
) -> None:
    """So the drain does not last as long as they would wait, and another replica serves them."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        await one.lease(POOL)
        await two.send(type="lease", id=1, token=POOL, wait_s=300)
        house.broker.context.pools.turn_away()
        assert (await two.answer(1))["code"] == "unavailable"

        async def empty() -> bool:
            return not await house_parts.every(house.storage, TicketRecord)

        await house.until(empty)
