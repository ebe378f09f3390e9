"""What operators change reaches the workers that hold it within a second, and what they say to it is on record."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import pytest

from broker.admin.asked import NewVersion
from broker.audit.entries import LeaseAcknowledged, LeaseRotated
from broker.clock import FakeClock

ROOT = "admin:root"


async def revoke(house: Any, wait_s: float = 0.0, **selector: Any) -> Any:
    chosen = {"lease": None, "token": None, "worker": None, **selector}
    return await house.services.leases.revoke(**chosen, reason="leaked", actor=ROOT, wait_s=wait_s)


async def test_a_rotation_is_pushed_to_every_holder_and_their_word_is_recorded(
    house: Any, welcomed: Any, prepare: Any
) -> None:
    """Each gets the value once, with the time that the former one still works; applied and failed are told apart."""
    await prepare(house, worker="ci-2")
    async with welcomed(house) as one, welcomed(house, "ci-2") as two, welcomed(house) as idle:
        leases = [(await each.lease("github/ci"))["lease"] for each in (one, two)]
        await house.put("github/ci", b"two", previous_valid_s=30)
        for worker, lease in zip((one, two), leases, strict=True):
            pushed = await worker.push(within_s=1)
            assert pushed == {
                "type": "rotated",
                "lease": lease,
                "token": "github/ci",
                "version": 2,
                "value": "two",
                "encoding": "utf8",
                "content_type": "text/plain",
                "previous_valid_s": 30.0,
            }
        await one.send(type="ack", lease=leases[0], version=2, status="applied")
        await two.send(type="ack", lease=leases[1], version=2, status="failed", detail="no room")
        entries = await house.entries_within(LeaseAcknowledged, 2)
        assert {(entry.lease, entry.status) for entry in entries} == {(leases[0], "applied"), (leases[1], "failed")}
        rows = [await house.row(lease) for lease in leases]
        assert [(row.version, row.acked_version, row.ack_failed) for row in rows] == [(2, 2, ""), (2, 0, "no room")]
        assert len(await house.entries(LeaseRotated)) == 2
        assert await idle.silent()
        assert await one.silent()


async def test_going_back_is_pushed_like_any_change(house: Any, welcomed: Any) -> None:
    """A rollback brings the value of the previous version to whoever holds the token, within a second."""
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        await house.put("github/ci", b"two")
        await worker.push()
        await house.services.tokens.rollback("github/ci", actor=ROOT)
        pushed = await worker.push(within_s=1)
        assert (pushed["type"], pushed["version"], pushed["value"]) == (
            "rotated",
            1,
            (await worker.lease("github/ci"))["value"],
        )


async def test_a_word_that_says_nothing_new_is_not_written(house: Any, welcomed: Any) -> None:
    """Repeating an acknowledgement, or sending an older one afterwards, changes neither row nor log."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await house.put("github/ci", b"two")
        await worker.push()
        for version in (2, 2, 2, 1, 2, 9):
            await worker.send(type="ack", lease=lease, version=version, status="applied")
        await worker.send(type="ack", lease="unknown", version=1, status="applied")
        await worker.send(type="ack", lease=lease, status="wiped")
        await worker.ask("renew", leases=["x"])
        await house.broker.desk.drained()
        assert (await house.row(lease)).acked_version == 2
        assert len(await house.entries(LeaseAcknowledged)) == 1


async def test_quick_rotations_leave_every_holder_with_the_last(house: Any, welcomed: Any) -> None:
    """Versions may be skipped; the last one arrives, and none arrives after it."""
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        for number in range(2, 12):
            await house.services.putter.put(NewVersion(token="github/ci", value=f"v{number}".encode()), actor=ROOT)
        await house.settled()
        versions = [(await worker.push())["version"]]
        while versions[-1] < 11:
            versions.append((await worker.push())["version"])
        assert versions == sorted(versions)
        assert (await worker.lease("github/ci"))["value"] == "v11"
        assert await worker.silent()


async def test_a_revocation_reaches_the_worker_and_waits_for_its_wipe(house: Any, welcomed: Any, prepare: Any) -> None:
    """The report names who wiped and who has not said so when the time is over."""
    await prepare(house, worker="mute")
    async with welcomed(house) as worker, welcomed(house, "mute") as mute:
        lease, deaf = [(await each.lease("github/ci"))["lease"] for each in (worker, mute)]

        async def obey() -> None:
            pushed = await worker.push(within_s=1)
            assert pushed == {"type": "revoked", "leases": [lease], "reason": "leaked"}
            await worker.send(type="ack", lease=lease, status="wiped")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(obey())
            report = await revoke(house, token="github/ci", wait_s=1.0)
        assert {ref.lease for ref in report.revoked} == {lease, deaf}
        assert [ref.lease for ref in report.wiped] == [lease]
        assert [each.ref.lease for each in report.missing] == [deaf]
        assert (await house.row(lease)).wiped_at is not None
        assert (await worker.ask("renew", leases=[lease]))["gone"] == [{"lease": lease, "code": "revoked"}]
        assert (await worker.lease("github/ci"))["lease"] != lease


async def test_waiting_for_wipes_ends_with_the_last_of_them(house: Any, welcomed: Any) -> None:
    """A revocation that everybody obeyed returns long before its time is over."""
    async with welcomed(house) as worker, asyncio.TaskGroup() as tasks:
        lease = (await worker.lease("github/ci"))["lease"]

        async def obey() -> None:
            await worker.push()
            await worker.send(type="ack", lease=lease, status="wiped")

        tasks.create_task(obey())
        async with asyncio.timeout(2):
            report = await revoke(house, lease=lease, wait_s=30.0)
        assert report.missing == ()


async def test_a_wipe_counts_that_was_the_last_thing_a_worker_said(house: Any, welcomed: Any) -> None:
    """A script that wipes, says so and ends at once is not listed as missing."""
    for _ in range(20):
        async with asyncio.TaskGroup() as tasks, welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            report = tasks.create_task(revoke(house, lease=lease, wait_s=5.0))
            await worker.push()
            await worker.send(type="ack", lease=lease, status="wiped")
        assert report.result().missing == ()


@pytest.mark.parametrize("selector", ["lease", "token", "worker"])
async def test_each_selector_ends_what_it_names_and_no_more(
    house: Any, welcomed: Any, prepare: Any, selector: str
) -> None:
    """By lease, by token, by worker; also leases that nobody holds at this moment."""
    await prepare(house, worker="ci-2")
    await house.put("github/other")
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        a, b = await one.lease("github/ci"), await one.lease("github/other")
        c = await two.lease("github/ci")
    await house.until(lambda: len(house.broker.sessions) == 0)
    name = {"lease": a["lease"], "token": "github/ci", "worker": "ci-1"}[selector]
    report = await revoke(house, **{selector: name})
    expected = {"lease": [a], "token": [a, c], "worker": [a, b]}[selector]
    assert {ref.lease for ref in report.revoked} == {granted["lease"] for granted in expected}
    live = {row.lease for row in await house.leases() if row.state == "live"}
    assert live == {granted["lease"] for granted in (a, b, c)} - {granted["lease"] for granted in expected}


async def test_revoking_what_is_over_changes_nothing(house: Any, welcomed: Any) -> None:
    """A second revocation, one of a released lease, and one of an unknown id report nothing."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await worker.ask("release", leases=[lease])
        row = await house.row(lease)
        for name in (lease, "0" * 32):
            assert (await revoke(house, lease=name)).revoked == ()
        assert await house.row(lease) == row


async def within_a_second(worker: Any, lease: str) -> dict[str, Any]:
    pushed: dict[str, Any] = await worker.push(within_s=1)
    assert (pushed["type"], pushed["leases"]) == ("revoked", [lease])
    return pushed


async def test_a_removed_grant_revokes_what_only_it_covered(house: Any, welcomed: Any) -> None:
    """Leases under another grant live on."""
    await house.put("gitlab/ci")
    await house.grant("worker:ci-1", "gitlab/*")
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        other = (await worker.lease("gitlab/ci"))["lease"]
        await house.services.grants.remove(house.granted.id, actor=ROOT)
        await within_a_second(worker, lease)
        assert (await worker.ask("lease", token="github/ci"))["code"] == "denied"
        assert (await worker.ask("renew", leases=[other]))["gone"] == []
        assert (await house.row(lease)).state == "revoked"


async def test_a_grant_that_another_one_stands_in_for_changes_nothing(house: Any, welcomed: Any) -> None:
    """Removing one of two grants leaves the lease alone."""
    await house.grant("worker:ci-1", "github/ci")
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await house.services.grants.remove(house.granted.id, actor=ROOT)
        await house.settled()
        assert await worker.silent()
        assert (await worker.ask("renew", leases=[lease]))["gone"] == []


async def test_leaving_a_group_revokes_what_it_gave(house: Any, welcomed: Any, wire: Any) -> None:
    """Membership is looked at anew, and joining gives at once."""
    who = house.workers["deployer"] = wire.Identity("deployer")
    await house.register(who, groups=("deploy",))
    await house.grant("group:deploy", "github/*")
    async with welcomed(house, "deployer") as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await house.services.workers.update("deployer", changes={"groups": ()}, actor=ROOT)
        await within_a_second(worker, lease)
        await house.services.workers.update("deployer", changes={"groups": ("deploy",)}, actor=ROOT)
        await house.settled()
        assert (await worker.lease("github/ci"))["lease"] != lease


async def test_a_disabled_worker_is_told_and_closed_with_4403(house: Any, welcomed: Any) -> None:
    """First `revoked`, so that it wipes; then the close; on record are both, with that code."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await house.services.workers.disable("ci-1", actor=ROOT)
        await within_a_second(worker, lease)
        await worker.send(type="ack", lease=lease, status="wiped")
        assert await worker.close_code(within_s=1) == 4403

    async def closed() -> bool:
        return all(row.ended_at for row in await house.sessions())

    await house.until(closed)
    assert [row.close_code for row in await house.sessions()] == [4403]
    assert (await house.row(lease)).wiped_at is not None


async def test_a_removed_worker_is_closed_with_4403(house: Any, welcomed: Any) -> None:
    """A worker that is registered no more holds nothing."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await house.services.workers.remove("ci-1", actor=ROOT)
        await within_a_second(worker, lease)
        assert await worker.close_code(within_s=1) == 4403


async def test_a_removed_key_closes_the_sessions_it_proved(house: Any, welcomed: Any, wire: Any) -> None:
    """Sessions of the worker's other key stay."""
    other = wire.Identity("ci-1")
    await house.services.workers.add_key("ci-1", other.public_key, actor=ROOT)
    await house.settled()
    house.workers["other key"] = other
    async with welcomed(house) as stolen, welcomed(house, "other key") as kept:
        removed = hashlib.sha256(house.workers["ci-1"].public_key).hexdigest()
        await house.services.workers.remove_key("ci-1", removed, actor=ROOT)
        assert await stolen.close_code(within_s=1) == 4403
        assert (await kept.ask("lease", token="github/ci"))["type"] == "granted"


async def test_an_expiring_worker_is_let_go(open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any) -> None:
    """At its instant of expiry its leases are over and its connection is closed."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            end = clock.now() + timedelta(seconds=20)
            await house.services.workers.update("ci-1", changes={"expires_at": end}, actor=ROOT)
            await house.elapse(19)
            assert (await worker.ask("renew", leases=[lease]))["gone"] == []
            await house.elapse(3)
            assert await worker.close_code() == 4403
        assert (await house.row(lease)).state in {"revoked", "expired"}


async def test_an_expired_grant_ends_its_leases(open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any) -> None:
    """No lease outlives the grant that gave it."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        await house.put("gitlab/ci")
        await house.grant("worker:ci-1", "gitlab/*", 60, 600, clock.now() + timedelta(seconds=30))
        async with welcomed(house) as worker:
            lease = (await worker.lease("gitlab/ci"))["lease"]
            await house.elapse(32)
            assert (await house.row(lease)).state in {"expired", "revoked"}
            assert (await worker.ask("lease", token="gitlab/ci"))["code"] == "denied"


@pytest.mark.parametrize("change", ["disable", "delete"])
async def test_a_token_that_may_be_leased_no_more_is_revoked(house: Any, welcomed: Any, change: str) -> None:
    """Disabling and deleting reach its holders."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await getattr(house.services.tokens, change)("github/ci", actor=ROOT)
        await within_a_second(worker, lease)
        refused = await worker.ask("lease", token="github/ci")
        assert refused["code"] == {"disable": "not_found", "delete": "denied"}[change]


async def test_a_token_that_is_enabled_again_can_be_leased_at_once(house: Any, welcomed: Any) -> None:
    """What was remembered of its absence is forgotten; the same holds for a token that is made after a worker asked."""
    async with welcomed(house) as worker:
        assert (await worker.ask("lease", token="github/late"))["code"] == "denied"
        await house.put("github/late", b"here")
        assert (await worker.lease("github/late"))["value"] == "here"
        await house.services.tokens.disable("github/late", actor=ROOT)
        await worker.push()
        await house.services.tokens.enable("github/late", actor=ROOT)
        await house.settled()
        assert (await worker.lease("github/late"))["value"] == "here"


async def test_a_former_version_that_is_promoted_again_is_pushed(house: Any, welcomed: Any) -> None:
    """Going back is a rotation like any other."""
    await house.put("github/ci", b"bad")
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        await house.services.tokens.promote("github/ci", 1, actor=ROOT)
        pushed = await worker.push(within_s=1)
        assert (pushed["version"], pushed["value"]) == (1, "s3cret")
