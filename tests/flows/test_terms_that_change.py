"""Grants and workers that change under a living lease: it never outlives them, and gets no time for nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from broker.clock import FakeClock


async def test_a_ceiling_that_came_down_gives_no_negative_time(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """A lease older than the maximum of the grant that is left keeps the time it has, and gets no more."""
    async with open_house(clock=clock) as house:
        await prepare(house, ttl_s=60, max_ttl_s=3600)
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            await house.elapse(100)
            worker.pushes.clear()
            await house.grant("worker:ci-1", "github/*", 10, 50)
            await house.services.grants.remove(house.granted.id, actor="admin:root")
            await house.settled()
            await house.broker.desk.drained()
            left_s = ((await house.row(lease)).expires_at - clock.now()).total_seconds()
            assert left_s > 0
            again = await worker.lease("github/ci")
            assert (again["lease"], 0 < again["ttl_s"] <= left_s) == (lease, True)
            renewed = await worker.ask("renew", leases=[lease])
            assert (renewed["gone"], 0 < renewed["leases"][0]["ttl_s"] <= left_s) == ([], True)
            await house.elapse(left_s + 2)
            assert (await house.row(lease)).state == "expired"
            assert (await worker.lease("github/ci"))["lease"] != lease


async def test_a_lease_is_cut_to_the_grant_that_is_left(house: Any, welcomed: Any) -> None:
    """It ends when its authority does, and the worker is told at once."""
    async with welcomed(house) as worker:
        lease = await worker.lease("github/ci")
        end = house.broker.clock.now() + timedelta(seconds=30)
        await house.grant("worker:ci-1", "github/*", 60, 3600, expires_at=end)
        await house.services.grants.remove(house.granted.id, actor="admin:root")
        pushed = await worker.push(within_s=1)
        assert pushed["type"] == "renewed"
        assert [item["lease"] for item in pushed["leases"]] == [lease["lease"]]
        assert 25 < pushed["leases"][0]["ttl_s"] <= 30
        assert (await worker.ask("renew", leases=[lease["lease"]]))["leases"][0]["ttl_s"] <= 30
