"""Values that are made for each lease on a real PostgreSQL server: they work while the lease lives, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from broker.audit.entries import IssuedEnded, IssuedMade, LeaseGranted
from storage.records import IssuedRecord

ROOT = "admin:root"
NAME = "db/reports"


@pytest.fixture
async def upstream(postgres: Any, issued_from: Any) -> Any:
    """A database on the server of this run."""
    there = issued_from.Upstream(postgres, await asyncio.to_thread(postgres.create))
    await asyncio.to_thread(there.found)
    return there


@pytest.fixture
async def issuing(house: Any, upstream: Any) -> Any:
    """The house, where ci-1 may lease logins."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    return house


async def rows(house: Any) -> list[IssuedRecord]:
    found: list[IssuedRecord] = (await house.storage.select(IssuedRecord)).records
    return found


async def gone(house: Any, upstream: Any, value: str) -> None:
    """Return when the login is gone upstream, and from the record."""

    async def nothing() -> bool:
        return not await rows(house)

    await house.until(nothing, 20)
    assert upstream.user(value) not in await upstream.logins()
    assert not await upstream.works(value)


async def test_a_lease_is_a_login_of_its_own(issuing: Any, upstream: Any, welcomed: Any) -> None:
    """It works at once, and the record says who made it for which lease."""
    async with welcomed(issuing) as worker:
        granted = await worker.lease(NAME)
        assert (granted["version"], granted["content_type"]) == (1, "application/json")
        assert await upstream.works(granted["value"])
        assert upstream.user(granted["value"]).endswith(granted["lease"])
        [row] = await rows(issuing)
        assert (row.lease, row.state, row.worker) == (granted["lease"], "live", "ci-1")
    [made] = await issuing.entries(IssuedMade)
    [said] = [entry for entry in await issuing.entries(LeaseGranted) if entry.token == NAME]
    assert (made.lease, made.token, made.issuer) == (granted["lease"], NAME, "postgresql-user")
    assert (said.lease, said.version) == (granted["lease"], 1)


async def test_asked_for_again_it_is_the_same(issuing: Any, upstream: Any, welcomed: Any) -> None:
    """In one session the lease and the value stay the same, however often and however fast it is asked for."""
    async with welcomed(issuing) as worker:
        for number in range(10):
            await worker.send(type="lease", id=number, token=NAME)
        answers = [await worker.answer(number) for number in range(10)]
        assert {answer["type"] for answer in answers} == {"granted"}
        assert len({(answer["lease"], answer["value"]) for answer in answers}) == 1
        assert len(await upstream.logins()) == 1


async def test_two_sessions_have_two_logins(issuing: Any, upstream: Any, welcomed: Any) -> None:
    """Nobody shares a value, not even one worker with itself."""
    async with welcomed(issuing) as one, welcomed(issuing) as two:
        first, second = await one.lease(NAME), await two.lease(NAME)
        assert upstream.user(first["value"]) != upstream.user(second["value"])
        assert await upstream.works(first["value"])
        assert await upstream.works(second["value"])


async def test_released_it_is_gone(issuing: Any, upstream: Any, welcomed: Any) -> None:
    """Whoever is still logged in is cut off, and the role is dropped."""
    async with welcomed(issuing) as worker:
        granted = await worker.lease(NAME)
        connection = await upstream.log_in(granted["value"])
        await worker.ask("release", leases=[granted["lease"]])
        await gone(issuing, upstream, granted["value"])
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
    [ended] = await issuing.entries(IssuedEnded)
    assert (ended.lease, ended.attempts, ended.forgotten) == (granted["lease"], 1, False)


@pytest.mark.parametrize("how", ["lease", "grant", "worker", "token"])
async def test_revoked_it_is_gone(issuing: Any, upstream: Any, welcomed: Any, how: str) -> None:
    """Whatever ends the lease ends the value: a revocation, a grant removed, a worker or the token disabled."""
    async with welcomed(issuing) as worker:
        granted = await worker.lease(NAME)
        if how == "lease":
            await issuing.broker.leases.revoke(
                lease=granted["lease"], token=None, worker=None, reason="leaked", actor=ROOT, wait_s=0
            )
        elif how == "grant":
            await issuing.services.grants.remove((await issuing.row(granted["lease"])).grant, actor=ROOT)
        elif how == "worker":
            await issuing.services.workers.disable("ci-1", actor=ROOT)
        else:
            await issuing.services.tokens.disable(NAME, actor=ROOT)
        await gone(issuing, upstream, granted["value"])


async def test_run_out_it_is_gone(house: Any, upstream: Any, welcomed: Any) -> None:
    """A worker that hangs up keeps its login as long as its lease, and not longer."""
    await house.grant("worker:ci-1", "db/*", 2, 60)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
    assert await upstream.works(granted["value"])
    await gone(house, upstream, granted["value"])


async def test_a_later_session_resumes_it(issuing: Any, upstream: Any, welcomed: Any) -> None:
    """The worker has the value; nothing is made and nothing is sent."""
    async with welcomed(issuing) as worker:
        granted = await worker.lease(NAME)
    async with welcomed(issuing) as worker:
        resumed = await worker.ask("resume", leases=[{"lease": granted["lease"], "version": 1}])
        assert [each["lease"] for each in resumed["live"]] == [granted["lease"]]
        assert not resumed.get("rotated")
        again = await worker.lease(NAME)
        assert (again["lease"], again["value"]) == (granted["lease"], granted["value"])
        assert await upstream.works(granted["value"])


async def test_who_states_another_version_asks_anew(issuing: Any, upstream: Any, welcomed: Any) -> None:
    """The value cannot be of another version, so the worker has not got it: that lease ends, and another begins."""
    async with welcomed(issuing) as worker:
        granted = await worker.lease(NAME)
    async with welcomed(issuing) as worker:
        resumed = await worker.ask("resume", leases=[{"lease": granted["lease"], "version": 2}])
        assert [each["code"] for each in resumed["gone"]] == ["released"]
        again = await worker.lease(NAME)
        assert again["lease"] != granted["lease"]
        assert await upstream.works(again["value"])


async def test_it_is_renewed_like_any_other(house: Any, upstream: Any, welcomed: Any) -> None:
    """The broker's own renewals reach it, and the value lives on."""
    await house.grant("worker:ci-1", "db/*", 2, 60)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
        for _ in range(3):
            frame = await worker.push(within_s=20)
            assert (frame["type"], [each["lease"] for each in frame["leases"]]) == ("renewed", [granted["lease"]])
        assert await upstream.works(granted["value"])
