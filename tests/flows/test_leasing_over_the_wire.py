"""Lease, renew, release over a real socket: answers item by item, times that add up, and everything on record."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from broker.audit.entries import LeaseGranted, LeaseRefused, LeasesEnded, LeasesRenewed
from broker.clock import FakeClock
from storage.records import LeaseRecord


async def test_a_granted_frame_has_the_stored_value_and_its_terms(house: Any, welcomed: Any) -> None:
    """Value, version, type and times are those stored and granted; row and audit entry say the same."""
    await house.put("github/json", b'{"a":1}', content_type="application/json")
    async with welcomed(house) as worker:
        granted = await worker.lease("github/json", ttl_s=30)
        row = await house.row(granted["lease"])
        assert granted == {
            "type": "granted",
            "id": granted["id"],
            "lease": row.lease,
            "token": "github/json",
            "version": 1,
            "value": '{"a":1}',
            "encoding": "utf8",
            "content_type": "application/json",
            "ttl_s": 30,
            "max_ttl_s": 3600,
            "expires_at": row.expires_at.timestamp(),
        }
        assert (row.state, row.worker, row.session) == ("live", "ci-1", worker.welcome["session"])
        (entry,) = await house.entries(LeaseGranted)
        assert (entry.lease, entry.token, entry.actor) == (row.lease, "github/json", "worker:ci-1")


VALUES = {
    "one": b"x",
    "all": bytes(range(256)),
    "unicode": "\u00e9\u4e2d\U0001f600\u2028".encode(),
    "quotes": b'"\\\n\x00\x7f',
    "full": b"\xff" * 65536,
    "zeros": b"\x00" * 65536,
}


async def test_every_value_arrives_byte_for_byte(house: Any, welcomed: Any, wire: Any) -> None:
    """Whatever bytes were stored, the worker ends up with them, and the frame keeps to its bound."""
    async with welcomed(house) as worker:
        for name, value in VALUES.items():
            await house.put(f"github/{name}", value)
            granted = await worker.lease(f"github/{name}")
            text = granted["value"]
            assert (wire.unb64(text) if granted["encoding"] == "b64" else text.encode()) == value


async def test_the_same_token_in_one_session_is_the_same_lease(house: Any, welcomed: Any) -> None:
    """Asking again renews; it makes no second lease."""
    async with welcomed(house) as worker:
        first, second = await worker.lease("github/ci", ttl_s=10), await worker.lease("github/ci", ttl_s=40)
        assert first["lease"] == second["lease"]
        assert (first["ttl_s"], second["ttl_s"]) == (10, 40)
        assert len(await house.leases()) == 1


async def test_the_same_token_asked_for_at_once_is_one_lease(house: Any, welcomed: Any) -> None:
    """Also when both requests are in one batch."""
    async with welcomed(house) as worker:
        for number in range(20):
            await worker.send(type="lease", id=number, token="github/ci")
        answers = [await worker.answer(number) for number in range(20)]
        assert len({answer["lease"] for answer in answers}) == 1
        assert len(await house.leases()) == 1


async def test_two_sessions_of_a_worker_have_leases_of_their_own(house: Any, welcomed: Any) -> None:
    """Each session's lease ends by itself; releasing one leaves the other."""
    async with welcomed(house) as one, welcomed(house) as two:
        first, second = await one.lease("github/ci"), await two.lease("github/ci")
        assert first["lease"] != second["lease"]
        await one.ask("release", leases=[first["lease"]])
        assert (await two.ask("renew", leases=[second["lease"]]))["gone"] == []


async def test_a_token_that_is_not_there_looks_like_one_that_is_not_granted(house: Any, welcomed: Any) -> None:
    """A worker cannot probe for names: but for the id, both answers are the same. The audit log tells them apart."""
    await house.put("gitlab/ci")
    async with welcomed(house) as worker:
        uncovered, missing = await worker.ask("lease", token="gitlab/ci"), await worker.ask("lease", token="github/no")
        assert uncovered["code"] == "denied"
        assert {**uncovered, "id": 0} == {**missing, "id": 0}
    refused = await house.entries_within(LeaseRefused, 2)
    assert [entry.reason for entry in refused] == ["no_grant", "no_such_token"]


async def test_a_disabled_token_is_not_found(house: Any, welcomed: Any) -> None:
    """A worker with a grant learns that there is nothing to have now."""
    await house.services.tokens.disable("github/ci", actor="admin:root")
    await house.put("github/pending", stage="pending")
    async with welcomed(house) as worker:
        for token in ("github/ci", "github/pending"):
            assert (await worker.ask("lease", token=token))["code"] == "not_found"
    assert [entry.code for entry in await house.entries_within(LeaseRefused, 2)] == ["not_found", "not_found"]


async def test_renew_and_release_answer_item_by_item(house: Any, welcomed: Any) -> None:
    """What is held is served, what is not is listed as gone, in one answer, each id once."""
    await house.put("github/other")
    async with welcomed(house) as worker:
        one, two = await worker.lease("github/ci"), await worker.lease("github/other")
        await worker.ask("release", leases=[two["lease"]])
        ids = [one["lease"], "never", two["lease"], one["lease"], "never"]
        renewed = await worker.ask("renew", leases=ids)
        assert [(item["lease"], round(item["ttl_s"])) for item in renewed["leases"]] == [(one["lease"], 60)]
        assert renewed["gone"] == [{"lease": "never", "code": "gone"}, {"lease": two["lease"], "code": "released"}]
        released = await worker.ask("release", leases=ids)
        assert (released["type"], released["leases"]) == ("released", [one["lease"]])
        assert released["gone"] == renewed["gone"]
        assert {row.state for row in await house.leases()} == {"released"}
        assert (await house.row(one["lease"])).due_at is None


async def test_another_s_lease_id_is_worth_nothing(house: Any, welcomed: Any, prepare: Any) -> None:
    """Renewing, releasing or acknowledging a lease of somebody else gets `gone`, and the owner keeps it untouched."""
    await prepare(house, worker="thief")
    async with welcomed(house) as owner, welcomed(house, "thief") as thief:
        lease = (await owner.lease("github/ci"))["lease"]
        before = await house.row(lease)
        for kind in ("renew", "release"):
            answer = await thief.ask(kind, leases=[lease])
            assert (answer["leases"], answer["gone"]) == ([], [{"lease": lease, "code": "gone"}])
        await thief.send(type="ack", lease=lease, version=1, status="failed", detail="ha")
        await thief.ask("renew", leases=["x"])
        assert await house.row(lease) == before
        assert (await owner.ask("renew", leases=[lease]))["gone"] == []


async def test_the_time_given_is_the_least_of_what_bounds_it(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """Asked for, the grant's default and maximum, what is left of it, the grant's end, the worker's end."""
    async with open_house(clock=clock) as house:
        who = await prepare(house, ttl_s=60, max_ttl_s=100)
        async with welcomed(house) as worker:
            assert (await worker.lease("github/ci"))["ttl_s"] == 60
            assert (await worker.lease("github/ci", ttl_s=7.5))["ttl_s"] == 7.5
            assert (await worker.lease("github/ci", ttl_s=5000))["ttl_s"] == 100
            await house.elapse(30)
            left = await worker.lease("github/ci", ttl_s=5000)
            assert (left["ttl_s"], left["max_ttl_s"]) == (70, 70)
            await house.put("gitlab/a")
            await house.put("bitbucket/a")
            await house.grant(f"worker:{who.name}", "gitlab/*", 60, 600, clock.now() + timedelta(seconds=25))
            ending = await worker.lease("gitlab/a")
            assert (ending["ttl_s"], ending["max_ttl_s"]) == (25, 25)
            await house.grant(f"worker:{who.name}", "bitbucket/*", 60, 600)
            soon = clock.now() + timedelta(seconds=15)
            await house.services.workers.update("ci-1", changes={"expires_at": soon}, actor="admin:root")
            await house.settled()
            ending = await worker.lease("bitbucket/a")
            assert (ending["ttl_s"], ending["max_ttl_s"]) == (15, 15)


async def test_the_broker_renews_at_half_the_time_all_leases_in_one_frame(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """One push and one audit entry for all leases of the session, also of those granted a little later."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        for number in range(5):
            await house.put(f"github/t{number}")
        async with welcomed(house) as worker:
            leases = [(await worker.lease("github/ci"))["lease"]]
            await house.elapse(3)
            leases += [(await worker.lease(f"github/t{number}"))["lease"] for number in range(5)]
            await house.elapse(26)
            assert worker.pushes == []
            await house.elapse(1.2)
            pushed = await worker.push()
            assert pushed["type"] == "renewed"
            assert "id" not in pushed
            assert sorted(item["lease"] for item in pushed["leases"]) == sorted(leases)
            assert all(abs(item["ttl_s"] - 60) < 0.5 for item in pushed["leases"])
            (entry,) = await house.entries(LeasesRenewed)
            assert entry.actor == "system"
            await house.elapse(29)
            assert worker.pushes == []
            await house.elapse(1.2)
            assert len((await worker.push())["leases"]) == 6


async def test_a_lease_lives_as_long_as_its_session_up_to_its_ceiling_and_a_fresh_one_can_follow(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """Renewals end at the maximum; then the lease runs out, is marked expired, and the worker may ask anew."""
    async with open_house(clock=clock) as house:
        await prepare(house, ttl_s=20, max_ttl_s=45)
        async with welcomed(house) as worker:
            first = await worker.lease("github/ci")
            await house.elapse(44)
            assert (await house.row(first["lease"])).state == "live"
            renewed = await worker.ask("renew", leases=[first["lease"]])
            assert 0 < renewed["leases"][0]["ttl_s"] <= 1.01
            await house.elapse(3)
            row = await house.row(first["lease"])
            assert (row.state, row.due_at) == ("expired", None)
            assert (row.expires_at - row.granted_at).total_seconds() == pytest.approx(45)
            renewed = await worker.ask("renew", leases=[first["lease"]])
            assert renewed["gone"] == [{"lease": first["lease"], "code": "expired"}]
            second = await worker.lease("github/ci")
            assert second["lease"] != first["lease"]
            assert (second["ttl_s"], second["max_ttl_s"]) == (20, 45)


async def test_leases_without_a_session_are_marked_expired(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """When the connection is gone nothing renews: rows turn expired when their time is over, and no earlier."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
        await house.until(lambda: len(house.broker.sessions) == 0)
        assert len(house.broker.context.holdings) == 0
        await house.elapse(58)
        assert (await house.row(lease)).state == "live"
        await house.elapse(4)
        row = await house.row(lease)
        assert (row.state, row.due_at) == ("expired", None)
        assert row.prune_at is not None
        assert [entry.state for entry in await house.entries(LeasesEnded)] == ["expired"]


async def test_many_leases_expire_in_batches(open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any) -> None:
    """More leases than one batch holds all end within one round of the sweeper."""
    async with open_house(clock=clock, leases={"expiry_batch": 7}) as house:
        await prepare(house)
        for number in range(20):
            await house.put(f"github/t{number}")
        async with welcomed(house) as worker:
            for number in range(20):
                await worker.lease(f"github/t{number}")
        await house.until(lambda: len(house.broker.sessions) == 0)
        await house.elapse(62)
        assert {row.state for row in await house.leases()} == {"expired"}


async def test_short_leases_are_renewed_as_well(house: Any, welcomed: Any) -> None:
    """A session keeps a lease of under a second for as long as it lives."""

    async def keep(ttl_s: float) -> None:
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci", ttl_s=ttl_s))["lease"]
            for _ in range(round(2 / ttl_s)):
                pushed = await worker.push(within_s=ttl_s)
                assert [item["lease"] for item in pushed["leases"]] == [lease]

    await asyncio.gather(*(keep(ttl_s) for ttl_s in (0.4, 0.6, 1.0)))


async def test_a_session_s_leases_are_bounded(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """One more than the bound is rate_limited; what is held can be asked for again, and releasing makes room."""
    async with open_house(leases__per_session="2") as house:
        await prepare(house)
        for name in "abc":
            await house.put(f"github/{name}")
        async with welcomed(house) as worker:
            first = await worker.lease("github/a")
            await worker.lease("github/b")
            assert (await worker.ask("lease", token="github/c"))["code"] == "rate_limited"
            assert (await worker.lease("github/a"))["lease"] == first["lease"]
            await worker.ask("release", leases=[first["lease"]])
            await worker.lease("github/c")


async def test_a_lease_that_expired_is_not_brought_back(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """Asking again after the time is over makes another lease, even before the sweeper has come by."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            first = await worker.lease("github/ci", ttl_s=20)
            house.storage.refuse = lambda commit: any(isinstance(row, LeaseRecord) for row in commit.written)
            await house.elapse(21)
            house.storage.refuse = lambda commit: False
            second = await worker.lease("github/ci")
            assert second["lease"] != first["lease"]


async def test_a_refused_worker_in_a_loop_fills_no_log(house: Any, welcomed: Any) -> None:
    """Hundreds of refusals, also of names that differ each time, leave few entries, and their count is not lost."""
    async with welcomed(house) as worker:
        for number in range(300):
            assert (await worker.ask("lease", token=f"secret/n{number}"))["code"] == "denied"
    assert len(await house.entries(LeaseRefused)) <= 40
