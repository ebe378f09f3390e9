"""Pools over real sockets: which member a lease gets, who waits for a place, and what reports do to a member."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.admin.errors import InUse, PoolRefused, WrongKind
from broker.admin.pools import NewPool, PoolAdmin
from broker.admin.put import NewVersion
from broker.audit.entries import LeaseGranted, PoolChanged
from storage.records import MemberRecord, SeatRecord, TicketRecord

ROOT = "admin:root"
POOL = "github/bots"


@pytest.fixture
def pooled() -> Any:
    """Makes the pool github/bots of members bot/1, bot/2, … in a house, each with a value that names it."""

    async def make(house: Any, members: int = 2, leases_max: int = 1, **more: Any) -> PoolAdmin:
        names = [f"bot/{number}" for number in range(1, members + 1)]
        for name in names:
            await house.put(name, f"value of {name}".encode())
        pools = PoolAdmin(
            authority=house.broker.authority,
            book=house.services.book,
            stored=house.services.stored,
            clock=house.broker.clock,
        )
        await pools.define(NewPool(token=POOL, members=names, leases_max=leases_max, **more), actor=ROOT)
        await house.settled()
        return pools

    return make


async def test_each_lease_gets_the_least_loaded_member(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """A grant for the pool suffices; the answer names the pool alone, the record the member too."""
    await pooled(house, 2, 1)
    await prepare(house, worker="ci-2")
    await prepare(house, worker="ci-3")
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house, "ci-3") as three:
        first, second = await one.lease(POOL), await two.lease(POOL)
        assert {first["value"], second["value"]} == {"value of bot/1", "value of bot/2"}
        assert "bot/" not in str({**first, "value": ""})
        refused = await three.ask("lease", token=POOL)
        assert (refused["code"], refused["retry_after_s"]) == ("rate_limited", 1.0)
        assert (await one.ask("lease", token="bot/1"))["code"] == "denied"
        assert (await one.lease(POOL))["lease"] == first["lease"]
        await one.ask("release", leases=[first["lease"]])
        assert (await three.lease(POOL))["value"] == first["value"]
    granted = await house.entries(LeaseGranted)
    assert sorted(entry.member for entry in granted) == ["bot/1", "bot/1", "bot/1", "bot/2"]
    assert (await house.row(first["lease"])).member == "bot/1"
    assert (await house.verified()).ok


async def test_who_waits_is_served_when_a_place_is_given_back(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """In the order of asking, and nothing is left of the line."""
    await pooled(house, 1, 1)
    for name in ("ci-2", "ci-3"):
        await prepare(house, worker=name)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house, "ci-3") as three:
        lease = await one.lease(POOL)
        await two.send(type="lease", id=1, token=POOL, wait_s=60)
        await house.until(lambda: _waiting(house, 1))
        await three.send(type="lease", id=1, token=POOL, wait_s=60)
        await house.until(lambda: _waiting(house, 2))
        await one.ask("release", leases=[lease["lease"]])
        second = await two.answer(1)
        assert second["type"] == "granted"
        assert await three.silent()
        await two.ask("release", leases=[second["lease"]])
        assert (await three.answer(1))["type"] == "granted"
    await house.until(lambda: _waiting(house, 0))
    assert len(await every(house, SeatRecord)) == 1


async def _waiting(house: Any, count: int) -> bool:
    return len(await every(house, TicketRecord)) == count


async def every(house: Any, kind: Any) -> list[Any]:
    return (await house.storage.select(kind)).records  # type: ignore[no-any-return]  # a house is any
