"""A replica that is cut off from the database, frozen, or whose clock is off: it gives nothing, says so, and mends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from broker import housekeeping
from broker.clock import SystemClock
from broker.replicas import roll
from broker.settings import load_settings
from storage.records import ReplicaRecord, SessionRecord


class Wrong(SystemClock):
    """A clock that shows another time."""

    ahead_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)


@pytest.fixture
async def network(shared: Path, tcp_proxies: Any) -> AsyncIterator[Any]:
    """What lies between replica `two` and the database."""
    where = urlsplit(load_settings(shared).storage.url)
    async with tcp_proxies.proxying(where.hostname, where.port) as proxy:
        proxy.url = where._replace(netloc=where.netloc.replace(f":{where.port}", f":{proxy.port}")).geturl()
        yield proxy


@pytest.fixture
async def both(open_replica: Any, prepare: Any, network: Any) -> AsyncIterator[Any]:
    """Two replicas; what `two` says to the database passes through `network`."""
    async with open_replica("one") as one, open_replica("two", storage__url=network.url) as two:
        await prepare(one)
        two.workers = one.workers
        await two.settled()
        yield one, two


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas beat often, and are found silent soon."""
    monkeypatch.setattr(roll, "BEAT_S", 0.1)
    monkeypatch.setattr(roll, "SILENT_BEATS", 8)
    monkeypatch.setattr(housekeeping, "_LOOK_S", 0.2)


async def checks(house: Any) -> dict[str, str]:
    """What /readyz says, by check; `ready` is its status."""
    async with aiohttp.ClientSession() as http, http.get(f"{house.url}/readyz") as response:
        found: dict[str, str] = (await response.json())["checks"]
        return {**found, "ready": str(response.status)}


@pytest.mark.parametrize("how", ["cut", "frozen"])
async def test_who_cannot_read_the_feed_gives_nothing_and_mends(
    both: Any, welcomed: Any, network: Any, how: str
) -> None:
    """After 3 s new grants are refused and readiness is red; the other replica serves on; what was revoked meanwhile
    reaches the worker as soon as the network is back, and leasing goes on by itself.
    """
    one, two = both
    await one.put("github/other", b"other")
    async with welcomed(two) as worker, welcomed(one) as elsewhere:
        lease = (await worker.lease("github/ci"))["lease"]
        if how == "cut":
            network.cut()
        else:
            network.thawed.clear()
        await two.until(lambda: two.broker.feed.trouble != "", within_s=10)
        assert (await worker.ask("lease", token="github/other"))["code"] == "unavailable"
        told = await checks(two)
        assert (told["feed"], told["ready"]) == ("failed", "503")
        await elsewhere.lease("github/other")
        await one.broker.leases.revoke(
            lease=lease, token=None, worker=None, reason="leaked", actor="admin:root", wait_s=0
        )
        network.mend()
        assert (await worker.push(within_s=40))["leases"] == [lease]
        await two.until(lambda: two.broker.feed.trouble == "", within_s=40)
        await worker.lease("github/other")

        async def ready() -> bool:
            return (await checks(two))["ready"] == "200"

        await two.until(ready, within_s=10)


async def test_a_replica_that_was_found_silent_comes_back(
    quick_beats: None, both: Any, welcomed: Any, network: Any
) -> None:
    """Its sessions are closed on record by the other one; when it is back, its workers connect anew and resume."""
    one, two = both
    async with welcomed(two) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        session = worker.welcome["session"]
        network.cut()

        async def buried() -> bool:
            rows = [row for row in await one.sessions() if row.session == session]
            return rows[0].close_code == 1006 and await one.storage.get(ReplicaRecord, ("two",)) is None

        await one.until(buried, within_s=30)
        network.mend()
        assert await worker.close_code(within_s=30) == 1012
    await two.until(lambda: two.broker.roll.lapses == 1)
    async with welcomed(two) as worker:
        answer = await worker.ask("resume", leases=[{"lease": lease, "version": 1}])
        assert [item["lease"] for item in answer["live"]] == [lease]
    assert (await one.storage.get(ReplicaRecord, ("two",))).ended_at is None


async def test_who_has_come_back_is_not_buried(quick_beats: None, both: Any, welcomed: Any) -> None:
    """A janitor that stood still between finding a replica dead and looking for its sessions closes none that lives."""
    one, two = both
    janitor = one if await one.broker.claim.ask() is not None else two
    other = two if janitor is one else one
    storage = janitor.storage
    looks, go_on, tried = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def select(kind: Any, **options: Any) -> Any:
        if kind is SessionRecord and (options.get("where") or {}).get("instance") == other.settings.instance:
            looks.set()
            await go_on.wait()
        return await storage.inner.select(kind, **options)

    async def commit(change: Any) -> Any:
        try:
            return await storage.inner.commit(change)
        finally:
            if any(isinstance(record, SessionRecord) for record in change.updates):
                tried.set()

    storage.select, storage.commit = select, commit
    other.storage.slow = lambda change: any(isinstance(record, ReplicaRecord) for record in change.updates)
    thaw = other.storage.gate = asyncio.Event()
    await asyncio.wait_for(looks.wait(), 20)
    thaw.set()
    await other.until(lambda: other.broker.roll.lapses == 1)
    async with welcomed(other) as worker:
        await worker.lease("github/ci")
        go_on.set()
        await asyncio.wait_for(tried.wait(), 10)
        sessions = {row.session: row for row in await other.sessions()}
        assert sessions[worker.welcome["session"]].ended_at is None


@pytest.mark.parametrize("ahead_s", [7.0, -7.0])
async def test_a_clock_that_is_off_stops_new_grants_until_it_is_right(
    quick_beats: None, open_replica: Any, prepare: Any, welcomed: Any, ahead_s: float
) -> None:
    """Refused with the reason, readiness red, held leases run on, no upkeep is done by that clock; it mends itself."""
    clock = Wrong()
    async with open_replica("one", clock=clock) as one, open_replica("two") as two:
        await prepare(one)
        two.workers = one.workers
        await two.settled()
        async with welcomed(one) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            clock.ahead_s = ahead_s
            await one.until(lambda: one.broker.roll.skew.trouble != "")
            refused = await worker.ask("lease", token="github/ci")
            assert refused["code"] == "unavailable"
            assert "clock" in refused["message"]
            told = await checks(one)
            assert (told["clock"], told["ready"]) == ("failed", "503")
            assert (await worker.ask("renew", leases=[lease]))["code"] == "unavailable"
            assert (await two.row(lease)).state == "live"
            await two.until(lambda: two.broker.claim.held and not one.broker.claim.held, within_s=10)
            clock.ahead_s = 0.0
            await one.until(lambda: one.broker.roll.skew.trouble == "")
            assert (await worker.ask("renew", leases=[lease]))["gone"] == []


async def test_a_name_that_is_served_is_refused(pair: Any, open_replica: Any) -> None:
    """A second process of the same name does not start, and the first one serves on."""
    with pytest.raises(roll.NameTaken):
        async with open_replica("two"):
            pass
    assert pair[1].broker.roll.lapses == 0
