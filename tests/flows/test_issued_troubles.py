"""Values made for leases while something fails: upstream silent or away, a rush, a broker killed, two replicas."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from broker.admin.asked import NewIssuer
from broker.admin.errors import InUse, WrongKind
from broker.audit.entries import IssuedEnded, IssuedFailed
from broker.leases.issued import making as issuing_module
from broker.leases.issued import unmaking as unmaking_module
from storage.port import Commit
from storage.records import IssuedRecord, LeaseRecord

ROOT = "admin:root"
NAME = "db/reports"
OTHER = "db/other"


@pytest.fixture
async def upstream(postgres: Any, issued_from: Any) -> Any:
    """A database on the server of this run."""
    there = issued_from.Upstream(postgres, await asyncio.to_thread(postgres.create))
    await asyncio.to_thread(there.found)
    return there


@pytest.fixture
async def far(upstream: Any, tcp_proxies: Any) -> Any:
    """The same database over a network that can fail."""
    async with tcp_proxies.proxying("127.0.0.1", upstream.port) as network:
        upstream.port = network.port
        upstream.network = network
        yield upstream
        network.mend()


@pytest.fixture
def near(far: Any, postgres: Any, issued_from: Any) -> Any:
    """The same database over a network that works."""
    return issued_from.Upstream(postgres, far.database)


async def rows(house: Any) -> list[IssuedRecord]:
    found: list[IssuedRecord] = (await house.storage.select(IssuedRecord)).records
    return found


async def nothing_left(house: Any, upstream: Any) -> None:
    async def nothing() -> bool:
        return not await rows(house) and not await upstream.logins()

    await house.until(nothing, 30)


async def test_a_silent_upstream_delays_nobody_else(
    house: Any, far: Any, welcomed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants a value of it is told `unavailable` in time; stored tokens are leased meanwhile, and after it too."""
    monkeypatch.setattr(issuing_module, "ISSUE_S", 2.0)
    monkeypatch.setattr(issuing_module, "GRACE_S", 3.0)
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await far.attach(house)
    far.network.thawed.clear()
    async with welcomed(house) as worker, welcomed(house) as beside:
        await worker.send(type="lease", id=77, token=NAME)
        for _ in range(20):
            granted = await beside.lease("github/ci")
            await beside.ask("release", leases=[granted["lease"]])
        assert 77 not in worker.answers
        answer = await worker.answer(77)
        assert (answer["type"], answer["code"]) == ("error", "unavailable")
        assert NAME in answer["message"]
        far.network.mend()
        await nothing_left(house, far)
        assert (await worker.lease(NAME))["lease"]
    [failed] = [entry for entry in await house.entries(IssuedFailed) if entry.step == "make"]
    assert (failed.token, failed.code) == (NAME, "upstream_unreachable")


async def test_what_cannot_be_ended_is_tried_until_it_is(
    house: Any, far: Any, near: Any, welcomed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays visible with its error, and holds up the ending of no other token's values."""
    monkeypatch.setattr(unmaking_module, "PAUSE_S_MAX", 1.0)
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await far.attach(house)
    await near.attach(house, token=OTHER)
    async with welcomed(house) as worker:
        stuck, free = await worker.lease(NAME), await worker.lease(OTHER)
        far.network.cut()
        await worker.ask("release", leases=[stuck["lease"], free["lease"]])

        async def only_the_stuck() -> bool:
            left = {row.lease: row for row in await rows(house)}
            return set(left) == {stuck["lease"]} and left[stuck["lease"]].attempt > 2

        await house.until(only_the_stuck, 30)
        [row] = await rows(house)
        assert (row.state, bool(row.error), row.due_at is not None) == ("ending", True, True)
        shown = await house.services.issuers.issued(token=NAME, after=None, limit=10)
        assert [each.error for each in shown.records] == [row.error]
        assert (await worker.lease(OTHER))["lease"]
        far.network.mend()

        async def gone() -> bool:
            return stuck["lease"] not in {each.lease for each in await rows(house)}

        await house.until(gone, 30)
    [failed] = [entry for entry in await house.entries(IssuedFailed) if entry.lease == stuck["lease"]]
    assert failed.step == "end"
    [ended] = [entry for entry in await house.entries(IssuedEnded) if entry.lease == stuck["lease"]]
    assert ended.attempts > 2


async def test_the_bounds_hold_under_a_rush(house: Any, upstream: Any, wire: Any) -> None:
    """200 requests at once make no more values than the token may have, and each refusal names the bound."""
    await upstream.attach(house, bounds=(10, 3))
    names = [f"w-{number}" for number in range(20)]
    for name in names:
        who = wire.Identity(name)
        await house.register(who)
        house.workers[name] = who
        await house.grant(f"worker:{name}", "db/*", 60, 600)
    async with AsyncExitStack() as stack:
        sessions = []
        for name in names:
            for _ in range(10):
                session = await stack.enter_async_context(wire.dial(house.url))
                assert (await session.handshake(house.workers[name]))["type"] == "welcome"
                sessions.append(session)
        answers = await asyncio.gather(*(session.ask("lease", token=NAME) for session in sessions))
        granted = [answer for answer in answers if answer["type"] == "granted"]
        refused = [answer for answer in answers if answer["type"] == "error"]
        assert len(granted) == 10
        assert {answer["code"] for answer in refused} == {"rate_limited"}
        assert all("10 values" in answer["message"] or "3 values" in answer["message"] for answer in refused)
        assert len(await upstream.logins()) == 10
        leases = {answer["lease"] for answer in granted}
        by_worker = [row.worker for row in await rows(house) if row.lease in leases]
        assert max(by_worker.count(name) for name in names) <= 3


async def test_a_place_is_free_when_the_value_is_gone(house: Any, upstream: Any, welcomed: Any) -> None:
    """A bound counts what exists upstream, so the next one is made as soon as the one before is dropped there."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house, bounds=(1, 1))
    async with welcomed(house) as one, welcomed(house) as two:
        granted = await one.lease(NAME)
        assert (await two.ask("lease", token=NAME))["code"] == "rate_limited"
        await one.ask("release", leases=[granted["lease"]])
        await nothing_left(house, upstream)
        assert (await two.lease(NAME))["lease"] != granted["lease"]


async def test_a_grant_that_is_not_durable_leaves_no_login(
    house: Any, upstream: Any, welcomed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value was made and its lease could not be written: nothing is sent, and what was made is ended."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    monkeypatch.setattr(issuing_module, "GRACE_S", 3.0)
    async with welcomed(house) as worker:
        house.storage.refuse = lambda commit: any(isinstance(row, LeaseRecord) for row in commit.inserts)
        answer = await worker.ask("lease", token=NAME)
        assert (answer["type"], answer["code"]) == ("error", "unavailable")
        assert len(await upstream.logins()) == 1
        house.storage.refuse = lambda commit: False
        await nothing_left(house, upstream)


async def test_killed_between_making_and_granting_it_is_ended(
    house: Any, upstream: Any, welcomed: Any, serving: Any, tmp_path: Path
) -> None:
    """kill -9 right behind the making: the next start finds the row, and the login that nobody got is dropped."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    house.storage.slow = lambda commit: any(isinstance(row, LeaseRecord) for row in commit.inserts)
    house.storage.gate = asyncio.Event()
    async with welcomed(house) as worker:
        await worker.send(type="lease", id=1, token=NAME)

        async def made() -> bool:
            return bool(await upstream.logins()) and house.storage.waiting > 0

        await house.until(made)
        [row] = await rows(house)
        assert (row.state, row.sealed) == ("making", b"")
        # What kill -9 leaves is what the disk holds now, and what PostgreSQL does.
        copy = tmp_path / "killed"
        await asyncio.to_thread(shutil.copytree, house.config.parent, copy)
        text = (copy / "broker.toml").read_text().replace(str(house.config.parent), str(copy))
        (copy / "broker.toml").write_text(text)
        house.storage.refuse = lambda commit: any(isinstance(each, IssuedRecord) for each in commit.updates)
        house.storage.gate.set()

        async with serving(copy / "broker.toml", tmp_path / "log", rotation__hosts="127.0.0.1"):

            async def dropped() -> bool:
                return not await upstream.logins()

            await house.until(dropped, 60)
    house.storage.refuse = lambda commit: False


async def test_either_replica_ends_what_the_other_made(
    open_replica: Any, prepare: Any, upstream: Any, welcomed: Any
) -> None:
    """On PostgreSQL: what one made is released at the other, and when the one with the work goes, the other has it."""
    async with AsyncExitStack() as first:
        one = await first.enter_async_context(open_replica("one"))
        await prepare(one)
        await one.grant("worker:ci-1", "db/*", 60, 600)
        await upstream.attach(one)
        async with open_replica("two") as two:
            two.workers = one.workers
            await two.settled()
            async with welcomed(one) as worker:
                granted = await worker.lease(NAME)
            async with welcomed(two) as worker:
                resumed = await worker.ask("resume", leases=[{"lease": granted["lease"], "version": 1}])
                assert [each["lease"] for each in resumed["live"]] == [granted["lease"]]
                await worker.ask("release", leases=[granted["lease"]])
                await nothing_left(two, upstream)
                again = await worker.lease(NAME)
                await first.aclose()
                await worker.ask("release", leases=[again["lease"]])
                await nothing_left(two, upstream)


async def test_replicas_together_keep_the_bound(open_replica: Any, prepare: Any, upstream: Any, wire: Any) -> None:
    """Asked at both at once, no more is made than the token may have."""
    async with open_replica("one") as one, open_replica("two") as two, AsyncExitStack() as stack:
        who = await prepare(one)
        await one.grant("worker:ci-1", "db/*", 60, 600)
        await upstream.attach(one, bounds=(3, 3))
        await two.settled()
        sessions = []
        for number in range(16):
            session = await stack.enter_async_context(wire.dial((one, two)[number % 2].url))
            assert (await session.handshake(who))["type"] == "welcome"
            sessions.append(session)
        answers = await asyncio.gather(*(session.ask("lease", token=NAME) for session in sessions))
        granted = [answer for answer in answers if answer["type"] == "granted"]
        assert 1 <= len(granted) <= 3
        assert len(await upstream.logins()) == len(granted)


async def test_the_password_is_nowhere(house: Any, upstream: Any, welcomed: Any, capfd: Any) -> None:
    """What was made for a lease stands in no log, no audit entry and no file of the database, nor in upstream's log."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    await asyncio.to_thread(upstream.sql, "ALTER SYSTEM SET log_statement = 'all'")
    await asyncio.to_thread(upstream.sql, "SELECT pg_reload_conf()")
    try:
        async with welcomed(house) as worker:
            granted = await worker.lease(NAME)
            password = json.loads(granted["value"])["password"]
            await worker.ask("release", leases=[granted["lease"]])
            await nothing_left(house, upstream)
    finally:
        await asyncio.to_thread(upstream.sql, "ALTER SYSTEM RESET log_statement")
        await asyncio.to_thread(upstream.sql, "SELECT pg_reload_conf()")
    said = capfd.readouterr()
    files = [file.read_bytes() for file in house.config.parent.iterdir() if file.is_file()]
    log = (upstream.server.folder / "log").read_bytes()
    assert b"CREATE ROLE" in log
    for content in (said.out.encode(), said.err.encode(), log, *files):
        assert password.encode() not in content


async def test_a_login_that_owns_something_stays_but_lets_nobody_in(house: Any, upstream: Any, welcomed: Any) -> None:
    """Without a setting that says what becomes of it nothing is dropped; the login is closed all the same."""
    await asyncio.to_thread(upstream.sql, f"GRANT CREATE ON SCHEMA public TO {upstream.readers}")
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
        connection = await upstream.log_in(granted["value"])
        await connection.execute("CREATE TABLE mine (what text)")
        await connection.close()
        await worker.ask("release", leases=[granted["lease"]])

    async def refused() -> bool:
        return any("drop_owned" in row.error for row in await rows(house))

    await house.until(refused)
    with pytest.raises(asyncpg.PostgresError):
        await upstream.log_in(granted["value"])
    await asyncio.to_thread(upstream.sql, "DROP TABLE mine")
    await nothing_left(house, upstream)


async def test_somebody_elses_role_is_left_alone(house: Any, upstream: Any, welcomed: Any) -> None:
    """A role without the comment of the lease is never dropped, whatever its name; an operator sees it, and ends it."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
        await asyncio.to_thread(upstream.sql, f"COMMENT ON ROLE {upstream.user(granted['value'])} IS 'the payroll'")
        with pytest.raises(InUse):
            await house.services.issuers.forget(granted["lease"], actor=ROOT)
        await worker.ask("release", leases=[granted["lease"]])

    async def refused() -> bool:
        return any("left alone" in row.error for row in await rows(house))

    await house.until(refused)
    assert await upstream.works(granted["value"])
    await house.services.issuers.forget(granted["lease"], actor=ROOT)
    assert not await rows(house)
    [entry] = await house.entries(IssuedEnded)
    assert (entry.forgotten, entry.actor) == (True, ROOT)


async def test_what_made_a_value_stays_until_it_is_gone(house: Any, upstream: Any, welcomed: Any) -> None:
    """Neither token nor issuer nor credential can be taken away, or be changed, under a value that is upstream."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
        with pytest.raises(InUse):
            await upstream.attach(house, connections="5")
        with pytest.raises(InUse):
            await house.services.tokens.delete(NAME, actor=ROOT)
        with pytest.raises(InUse):
            await house.services.tokens.delete(f"{NAME}-maker", actor=ROOT)
        [row] = await rows(house)
        await house.services.keys.rotate("default", actor=ROOT, from_data_key=row.data_key)
        with pytest.raises(InUse, match="made for leases"):
            await house.services.retirer.destroy(row.data_key, actor=ROOT)
        await worker.ask("release", leases=[granted["lease"]])
        await nothing_left(house, upstream)
    await house.services.tokens.disable(NAME, actor=ROOT)
    await upstream.attach(house, connections="5")
    await house.services.tokens.delete(NAME, actor=ROOT)
    assert house.broker.authority.issuers.get((NAME,)) is None


async def test_stored_and_made_values_do_not_mix(house: Any, upstream: Any) -> None:
    """Nothing is put into a token with an issuer, and no token with a value gets one."""
    await upstream.attach(house)
    with pytest.raises(WrongKind):
        await house.put(NAME, secrets.token_bytes(8))
    with pytest.raises(WrongKind):
        await upstream.attach(house, token="github/ci")


async def test_what_another_hand_wrote_is_acted_upon_by_nobody(house: Any, upstream: Any, welcomed: Any) -> None:
    """Whoever can write to the database makes the broker drop no role by that, and keeps no lease from ending."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        mine = await worker.lease(NAME)
        async with welcomed(house) as beside:
            other = await beside.lease(NAME)
            row = await house.storage.get(IssuedRecord, (mine["lease"],))
            victim = {"role": upstream.user(other["value"])}
            forged = msgspec.structs.replace(row, rev=row.rev + 1, state="ending", handle=victim, due_at=row.made_at)
            await house.storage.commit(Commit(updates=[forged]))
            await worker.ask("release", leases=[mine["lease"]])
            assert (await house.row(mine["lease"])).state == "released"
            looked = house.broker.unmaking.counts.ended
            await beside.ask("release", leases=[other["lease"]])
            await house.until(lambda: house.broker.unmaking.counts.ended > looked)
    assert [each.lease for each in await rows(house)] == [mine["lease"]]
    assert upstream.user(mine["value"]) in await upstream.logins()


async def test_what_ends_by_itself_is_shown_until_then_and_raises_no_alarm(
    house: Any, moto: Any, aws_environment: None, welcomed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of an AWS role cannot be ended: it keeps its place, says until when, and is not waited for as stuck."""
    monkeypatch.setattr(unmaking_module, "MEASURE_S", 0.1)
    await house.grant("worker:ci-1", "aws/*", 60, 7200)
    new = NewIssuer(
        token="aws/reports",
        issuer="aws-sts",
        settings={"role_arn": "arn:aws:iam::123456789012:role/reports", "endpoint": moto.url},
        credentials={},
        leases_max=1,
    )
    await house.services.issuers.set(new, actor=ROOT)
    await house.settled()
    async with welcomed(house) as worker:
        granted = await worker.lease("aws/reports")
        key = json.loads(granted["value"])
        assert 3500 < granted["max_ttl_s"] <= 3601
        await worker.ask("release", leases=[granted["lease"]])

        async def waits() -> bool:
            [row] = await rows(house)
            return bool(row.error) and row.due_at == row.ends_at

        await house.until(waits)
        [row] = await rows(house)
        assert row.handle["session"] == granted["lease"]
        assert row.handle["access_key"] == key["AccessKeyId"]
        assert row.ends_at is not None
        assert row.ends_at.isoformat() == key["Expiration"]
        assert (await worker.ask("lease", token="aws/reports"))["code"] == "rate_limited"
        counts = house.broker.unmaking.counts
        await house.until(lambda: (counts.waiting, counts.oldest_s) == (1, 0.0))
    assert not await house.entries(IssuedFailed)


async def test_storage_that_cannot_serve_is_not_blamed_on_upstream(house: Any, upstream: Any, welcomed: Any) -> None:
    """Without its row nothing is made; the worker hears what is wrong, and may ask again at once when it is mended."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        house.storage.refuse = lambda commit: any(isinstance(row, IssuedRecord) for row in commit.inserts)
        answer = await worker.ask("lease", token=NAME)
        assert (answer["code"], "on strike" in answer["message"]) == ("unavailable", True)
        house.storage.refuse = lambda commit: False
        assert not await upstream.logins()
        assert not house.broker.issuing.counts.failed
        assert await upstream.works((await worker.lease(NAME))["value"])


async def test_a_keyring_that_is_rotated_while_a_value_is_made_loses_no_key(
    house: Any, far: Any, welcomed: Any
) -> None:
    """The row names the data key that the value is sealed under before it is granted, so nobody destroys that one."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await far.attach(house)
    far.network.thawed.clear()
    async with welcomed(house) as worker:
        await worker.send(type="lease", id=5, token=NAME)

        async def begun() -> bool:
            return len(await rows(house)) == 1

        await house.until(begun)
        [before] = await rows(house)
        await house.services.keys.rotate("default", actor=ROOT, from_data_key=before.data_key)
        far.network.mend()
        granted = await worker.answer(5)
        assert granted["type"] == "granted", granted
        [after] = await rows(house)
        assert after.data_key not in {"", before.data_key}
        assert (await worker.lease(NAME))["value"] == granted["value"]
