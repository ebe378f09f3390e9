"""Storage that refuses, stalls, or changes under the broker: nothing leaves unrecorded, nobody else is hurt."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.audit.entries import LeaseGranted
from broker.clock import FakeClock
from broker.leases.terms import WORTH_RENEWING_S
from storage.port import Commit
from storage.records import LeaseRecord
from storage.sqlite import open_sqlite


def writes_leases(commit: Commit) -> bool:
    return any(isinstance(row, LeaseRecord) for row in commit.written)


async def test_a_commit_that_is_refused_sends_nothing(house: Any, welcomed: Any) -> None:
    """The worker gets `unavailable` and a time to come back, and no value; when storage recovers, it is served."""
    async with welcomed(house) as worker:
        house.storage.refuse = writes_leases
        refused = await worker.ask("lease", token="github/ci")
        assert refused["code"] == "unavailable"
        assert refused["retry_after_s"] > 0
        assert "s3cret" not in str(refused)
        assert await house.leases() == []
        house.storage.refuse = lambda commit: False
        assert (await worker.lease("github/ci"))["value"] == "s3cret"
        assert len(await house.entries(LeaseGranted)) == 1


@pytest.mark.parametrize("kind", ["renew", "release", "resume"])
async def test_a_refused_change_of_a_lease_leaves_it_as_it_was(house: Any, welcomed: Any, kind: str) -> None:
    """The worker is told, memory and record agree, and the same request succeeds afterwards."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci", ttl_s=30))["lease"]
        before = await house.row(lease)
        await asyncio.sleep(WORTH_RENEWING_S * 2)
        named = [{"lease": lease, "version": 1}] if kind == "resume" else [lease]
        house.storage.refuse = writes_leases
        assert (await worker.ask(kind, leases=named))["code"] == "unavailable"
        assert await house.row(lease) == before
        house.storage.refuse = lambda commit: False
        assert (await worker.ask(kind, leases=named))["gone"] == []


async def test_a_commit_that_takes_too_long_sends_nothing(house: Any, welcomed: Any) -> None:
    """After two seconds the worker is refused; the lease that is written after all is nobody's, and runs out."""
    async with welcomed(house) as worker:
        house.storage.slow = writes_leases
        house.storage.late_s = 2.5
        refused = await worker.ask("lease", token="github/ci")
        assert (refused["code"], refused["retry_after_s"] > 0) == ("unavailable", True)
        await asyncio.sleep(0.7)
        assert await worker.silent()
        assert len(house.broker.context.holdings) == 0
        house.storage.late_s = 0.0
        granted = await worker.lease("github/ci")
        rows = await house.leases()
        assert len(rows) == 2
        assert granted["lease"] in {row.lease for row in rows}
        assert (await house.verified()).problems == []


async def test_a_push_that_cannot_be_recorded_is_not_sent_until_it_can(house: Any, welcomed: Any) -> None:
    """A rotation and a revocation wait for storage, then arrive."""
    await house.put("gitlab/ci")
    other = await house.grant("worker:ci-1", "gitlab/*")
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        lost = (await worker.lease("gitlab/ci"))["lease"]
        house.storage.refuse = writes_leases
        await house.put("github/ci", b"two")
        await house.services.grants.remove(other.id, actor="admin:root")
        await house.settled()
        assert await worker.silent(0.5)
        house.storage.refuse = lambda commit: False
        pushes = [await worker.push(within_s=3), await worker.push(within_s=3)]
        assert {push["type"] for push in pushes} == {"rotated", "revoked"}
        assert next(push["leases"] for push in pushes if push["type"] == "revoked") == [lost]


async def test_a_push_that_landed_unconfirmed_is_sent_and_nothing_said_meanwhile_is_lost(
    house: Any, welcomed: Any
) -> None:
    """Memory is a revision behind the row then: what is said next is written on what is there, not over it."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        house.storage.slow, house.storage.late_s = writes_leases, 2.5
        await house.put("github/ci", b"two")

        async def landed() -> bool:
            return bool((await house.row(lease)).version == 2)

        await house.until(landed)
        house.storage.late_s = 0.0
        assert await worker.silent(0.2)
        await worker.send(type="report", lease=lease, event="rejected", version=1)
        push = await worker.push(within_s=20)
        assert (push["type"], push["version"], push["value"]) == ("rotated", 2, "two")
        await worker.send(type="ack", lease=lease, status="applied", version=2)

        async def told() -> bool:
            row = await house.row(lease)
            return row.acked_version == 2 and row.report is not None

        await house.until(told)
        row = await house.row(lease)
        assert (row.version, row.report.event, row.report.version) == (2, "rejected", 1)
        assert [past.version for past in row.past] == [1]
        assert house.broker.context.holdings.by_lease[lease].record == row


async def test_renewals_go_on_after_an_outage(open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any) -> None:
    """A renewal that could not be written is tried again until it is, while the lease lives."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            house.storage.refuse = writes_leases
            await house.elapse(50)
            assert worker.pushes == []
            house.storage.refuse = lambda commit: False
            await house.elapse(2)
            pushed = await worker.push()
            assert [(item["lease"], item["ttl_s"]) for item in pushed["leases"]] == [(lease, 60)]


async def test_without_the_feed_no_new_grants(open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any) -> None:
    """A broker that has not read the feed for three seconds does not know who was revoked: it grants nothing, and
    recovers by itself. What workers give back it takes."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        await house.put("github/other")
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/other"))["lease"]
            house.storage.deaf = True
            await asyncio.sleep(0.05)
            await clock.advance(2.9)
            assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"
            await clock.advance(0.2)
            for kind, fields in (
                ("lease", {"token": "github/ci"}),
                ("renew", {"leases": [lease]}),
                ("resume", {"leases": [{"lease": lease, "version": 1}]}),
            ):
                refused = await worker.ask(kind, **fields)
                assert (refused["code"], refused["retry_after_s"] > 0) == ("unavailable", True)
            assert (await worker.ask("release", leases=[lease]))["leases"] == [lease]
            house.storage.deaf = False
            await clock.advance(0.2)
            await house.until(lambda: not house.broker.feed.trouble)
            assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"


async def test_a_lost_compare_and_set_hurts_nobody_else(house: Any, welcomed: Any, config: Path) -> None:
    """Another process changed one lease's row: that one is gone, all others of the batch are served."""
    for number in range(6):
        await house.put(f"github/t{number}")
    async with welcomed(house) as worker, open_sqlite(f"sqlite:///{config.parent / 'broker.db'}") as other:
        leases = [(await worker.lease(f"github/t{number}"))["lease"] for number in range(6)]
        row = await house.row(leases[2])
        await other.commit(Commit(updates=[msgspec.structs.replace(row, rev=row.rev + 1, session="elsewhere")]))
        await asyncio.sleep(WORTH_RENEWING_S * 2)
        for number, lease in enumerate(leases):
            await worker.send(type="renew", id=1000 + number, leases=[lease])
        answers = [await worker.answer(1000 + number) for number in range(6)]
        assert [len(answer["leases"]) for answer in answers] == [1, 1, 0, 1, 1, 1]
        assert answers[2]["gone"] == [{"lease": leases[2], "code": "gone"}]
        assert (await worker.ask("renew", leases=leases))["gone"] == [{"lease": leases[2], "code": "gone"}]


async def test_a_revision_that_another_replica_raised_is_taken_over(house: Any, welcomed: Any, config: Path) -> None:
    """The lease is still this session's: the request is decided again on the row as it is now, and served."""
    async with welcomed(house) as worker, open_sqlite(f"sqlite:///{config.parent / 'broker.db'}") as other:
        lease = (await worker.lease("github/ci"))["lease"]
        row = await house.row(lease)
        await other.commit(Commit(updates=[msgspec.structs.replace(row, rev=row.rev + 1, acked_version=1)]))
        await asyncio.sleep(WORTH_RENEWING_S * 2)
        assert (await worker.ask("renew", leases=[lease]))["gone"] == []
        after = await house.row(lease)
        assert (after.rev, after.acked_version) == (row.rev + 2, 1)


async def test_a_lease_that_another_replica_revoked_is_pushed(house: Any, welcomed: Any, config: Path) -> None:
    """Its announcement in the feed is enough; the holder hears of it within a second."""
    async with welcomed(house) as worker, open_sqlite(f"sqlite:///{config.parent / 'broker.db'}") as other:
        lease = (await worker.lease("github/ci"))["lease"]
        row = await house.row(lease)
        revoked = msgspec.structs.replace(row, rev=row.rev + 1, state="revoked", reason="leak", due_at=None)
        await other.commit(Commit(updates=[revoked], announce=[("lease", (lease,))]))
        assert await worker.push(within_s=1) == {"type": "revoked", "leases": [lease], "reason": "leak"}
        await worker.send(type="ack", lease=lease, status="wiped")

        async def wiped() -> bool:
            return (await house.row(lease)).wiped_at is not None

        await house.until(wiped)


def edit(config: Path, statement: str, *values: Any) -> None:
    """What somebody with access to the file may do."""
    with sqlite3.connect(config.parent / "broker.db") as database:
        assert database.execute(statement, values).rowcount == 1
    database.close()


async def test_a_token_row_that_was_tampered_with_is_not_served(
    open_house: Any, config: Path, prepare: Any, welcomed: Any
) -> None:
    """It is `unavailable`, without a word of why; tokens asked for in the same moment are granted."""
    async with open_house() as house:
        who = await prepare(house)
        for number in range(5):
            await house.put(f"github/t{number}")
    edit(config, "update token set previous_valid_s = 9 where name = ?", "github/t2")
    async with open_house() as house:
        house.workers["ci-1"] = who
        async with welcomed(house) as worker:
            for number in range(5):
                await worker.send(type="lease", id=number, token=f"github/t{number}")
            answers = [await worker.answer(number) for number in range(5)]
            assert [answer["type"] for answer in answers] == ["granted", "granted", "error", "granted", "granted"]
            assert answers[2]["code"] == "unavailable"
            assert "t2" not in answers[2]["message"]


async def test_one_tampered_row_costs_a_returning_worker_only_that_lease(
    open_house: Any, config: Path, prepare: Any, welcomed: Any
) -> None:
    """Its other leases are resumed and renewed; the one of the bad row is not served, and runs out."""
    async with open_house() as house:
        who = await prepare(house)
        await house.put("github/bad")
        async with welcomed(house) as worker:
            good, bad = await worker.lease("github/ci"), await worker.lease("github/bad")
    edit(config, "update token set previous_valid_s = 9 where name = ?", "github/bad")
    async with open_house() as house:
        house.workers["ci-1"] = who
        async with welcomed(house) as worker:
            stated = [{"lease": granted["lease"], "version": 1} for granted in (bad, good)]
            resumed = await worker.ask("resume", leases=stated)
            assert [item["lease"] for item in resumed["live"]] == [good["lease"]]
            assert resumed["gone"] == [{"lease": bad["lease"], "code": "gone"}]


async def test_a_bad_row_does_not_keep_a_lost_right_alive(house: Any, welcomed: Any, config: Path) -> None:
    """A removed grant revokes the lease also when the token's row cannot be believed; meanwhile it is not renewed."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci", ttl_s=30))["lease"]
        edit(config, "update token set previous_valid_s = 9 where name = ?", "github/ci")
        house.broker.context.heads.forget(["github/ci"])
        before = (await house.row(lease)).expires_at
        assert (await worker.ask("renew", leases=[lease]))["gone"] == []
        assert (await house.row(lease)).expires_at == before
        await house.services.grants.remove(house.granted.id, actor="admin:root")
        assert (await worker.push(within_s=1))["leases"] == [lease]


async def test_a_tampered_authority_row_stops_new_grants(house: Any, welcomed: Any, config: Path) -> None:
    """Nobody is granted anything until an operator has looked; the connection stays."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        edit(config, "update worker set groups = ? where name = ?", '["admins"]', "ci-1")
        edit(config, "update manifest set count = count + 1 where kind = ?", "worker")
        await house.until(lambda: bool(house.broker.feed.tampered))
        refused = await worker.ask("lease", token="github/ci")
        assert (refused["code"], refused["retry_after_s"] > 0) == ("unavailable", True)
        assert (await worker.ask("release", leases=[lease]))["leases"] == [lease]


async def test_a_tampered_authority_row_holds_up_no_revocation(house: Any, welcomed: Any, config: Path) -> None:
    """What takes a right away goes on while an operator has still to look."""
    async with welcomed(house) as worker, open_sqlite(f"sqlite:///{config.parent / 'broker.db'}") as other:
        lease = (await worker.lease("github/ci"))["lease"]
        edit(config, "update manifest set count = count + 1 where kind = ?", "worker")
        await house.until(lambda: bool(house.broker.feed.tampered))
        row = await house.row(lease)
        revoked = msgspec.structs.replace(row, rev=row.rev + 1, state="revoked", reason="leak", due_at=None)
        await other.commit(Commit(updates=[revoked], announce=[("lease", (lease,))]))
        assert (await worker.push(within_s=1))["leases"] == [lease]


async def test_an_error_that_nobody_foresaw_ends_one_batch_only(house: Any, welcomed: Any) -> None:
    """A bug in an adapter is `internal` for those whose commit it met; the broker goes on for everybody."""

    def bug(commit: Commit) -> bool:
        if writes_leases(commit):
            raise RuntimeError("our bug")
        return False

    async with welcomed(house) as worker:
        house.storage.refuse = bug
        assert (await worker.ask("lease", token="github/ci"))["code"] == "internal"
        house.storage.refuse = lambda commit: False
        assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"
