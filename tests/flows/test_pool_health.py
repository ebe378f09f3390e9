"""What workers' reports do to a member of a pool: it rests, or is quarantined, and comes back."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest

from broker.audit.entries import PoolChanged
from storage.port import Commit
from storage.records import MemberRecord

ROOT = "admin:root"
POOL = "github/bots"


async def report(house: Any, worker: Any, lease: Any, event: str, **more: Any) -> None:
    """Send a report, and return when the broker knows."""
    await worker.send(type="report", lease=lease["lease"], event=event, **more)
    await worker.ask("renew", leases=[lease["lease"]])
    await house.settled()


@pytest.fixture
async def still(open_house: Any, prepare: Any, pooled: Any, clock: Any) -> Any:
    """A house whose clock stands still, with the pool of two members; any number may lease each."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        await pooled(house, prepare, leases_max=10)
        yield house


async def test_a_rate_limited_member_rests_as_long_as_upstream_said(still: Any, welcomed: Any) -> None:
    """Meanwhile the other member has all that is leased; afterwards it is leased again."""
    async with welcomed(still) as one, welcomed(still, "ci-2") as two, welcomed(still, "ci-3") as three:
        first = await one.lease(POOL)
        await report(still, one, first, "rate_limited", retry_after_s=20)
        other = "value of bot/2" if first["value"] == "value of bot/1" else "value of bot/1"
        assert (await two.lease(POOL))["value"] == other
        assert (await three.lease(POOL))["value"] == other
        await still.elapse(21)
        await three.ask("release", leases=[(await three.lease(POOL))["lease"]])
        await two.ask("release", leases=[(await two.lease(POOL))["lease"]])
        await one.ask("release", leases=[(await one.lease(POOL))["lease"]])
        assert {(await one.lease(POOL))["value"], (await two.lease(POOL))["value"]} == {first["value"], other}


async def test_one_worker_lets_half_of_a_pool_rest_and_quarantines_none(still: Any, welcomed: Any) -> None:
    """However much it reports; so a worker that lies does not keep the others from leasing."""
    async with welcomed(still) as liar, welcomed(still, "ci-2") as two:
        for _ in range(4):
            lease = await liar.lease(POOL)
            await report(still, liar, lease, "rejected")
            await report(still, liar, lease, "rate_limited", retry_after_s=86_400)
            await liar.ask("release", leases=[lease["lease"]])
        await two.lease(POOL)
        rows = (await still.storage.select(MemberRecord)).records
        assert sum(row.cool_until is not None for row in rows) == 1
        assert all(row.quarantined_at is None for row in rows)
        await still.elapse(16 * 60)
        states = (await still.services.pool_book.status(POOL)).members
        assert [member.health for member in states] == ["well", "well"]


async def test_two_workers_quarantine_a_member_until_its_value_is_another(still: Any, welcomed: Any) -> None:
    """What is leased goes on; nobody else gets it; the record names the witnesses; a new version ends it."""
    pools = still.services.pools
    await pools.remove_member(POOL, "bot/2", actor=ROOT)
    await still.settled()
    async with welcomed(still) as one, welcomed(still, "ci-2") as two, welcomed(still, "ci-3") as three:
        first, second = await one.lease(POOL), await two.lease(POOL)
        await report(still, one, first, "rejected")
        await still.elapse(31)
        await report(still, two, second, "rejected")
        refused = await three.ask("lease", token=POOL, wait_s=60)
        assert refused["code"] == "unavailable"
        assert "quarantined" in refused["message"]
        (entry,) = [each for each in await still.entries(PoolChanged) if each.change == "quarantined"]
        assert (entry.members, entry.reason) == (("bot/1",), "rejected by ci-1, ci-2")
        assert (await one.lease(POOL))["lease"] == first["lease"]
        await still.put("bot/1", b"mended")
        assert (await three.lease(POOL))["value"] == "mended"


async def test_an_operator_quarantines_and_releases(still: Any, welcomed: Any) -> None:
    """No new version ends what an operator began."""
    pools = still.services.pools
    await pools.quarantine(POOL, "bot/1", reason="account locked", actor=ROOT)
    await still.put("bot/1", b"new")
    async with welcomed(still) as one, welcomed(still, "ci-2") as two:
        assert {(await one.lease(POOL))["value"], (await two.lease(POOL))["value"]} == {"value of bot/2"}
        await pools.release(POOL, "bot/1", actor=ROOT)
        await still.settled()
        await two.ask("release", leases=[(await two.lease(POOL))["lease"]])
        assert (await two.lease(POOL))["value"] == "new"


async def test_a_damaged_row_of_a_member_stops_its_pool_and_nothing_else(
    house: Any, welcomed: Any, prepare: Any, pooled: Any, config: Any
) -> None:
    """Changes go on being followed; who asks for the pool is refused until an operator has mended it."""
    pools = await pooled(house, prepare, leases_max=10)
    await pools.quarantine(POOL, "bot/1", reason="locked", actor=ROOT)
    await house.settled()
    with contextlib.closing(sqlite3.connect(config.parent / "broker.db", timeout=20, isolation_level=None)) as raw:
        raw.execute("UPDATE member SET rejected_by = 'nonsense'")
    row = MemberRecord(
        rev=1,
        token=POOL,
        member="bot/2",
        cool_until=None,
        quarantined_at=None,
        reason="",
        changed_at=house.broker.clock.now(),
    )
    await house.storage.commit(Commit(inserts=[row], announce=[("member", row.key)]))
    await house.put("github/ci", b"later")
    async with welcomed(house) as one:
        assert (await one.lease("github/ci"))["value"] == "later"
        assert (await one.ask("lease", token=POOL))["code"] in {"unavailable", "internal"}


async def test_while_all_members_rest_those_wait_who_said_so(still: Any, welcomed: Any) -> None:
    """Whoever does not wait is told when the first is back; whoever waits has it then."""
    await still.services.pools.remove_member(POOL, "bot/2", actor=ROOT)
    await still.settled()
    async with welcomed(still) as one, welcomed(still, "ci-2") as two, welcomed(still, "ci-3") as three:
        await report(still, one, await one.lease(POOL), "rate_limited", retry_after_s=20)
        refused = await two.ask("lease", token=POOL)
        assert refused["code"] == "rate_limited"
        assert 15 < refused["retry_after_s"] <= 20
        await three.send(type="lease", id=1, token=POOL, wait_s=60)
        assert await three.silent()
        await still.elapse(21)
        assert (await three.answer(1))["value"] == "value of bot/1"
