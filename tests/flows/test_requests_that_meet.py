"""Requests of one session that wait together and so are decided in one batch: what they get, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from broker.admin.asked import NewGrant
from broker.audit.entries import LeaseGranted
from broker.leases.granting import JOINED_CHARS_MAX
from storage.errors import Conflict
from storage.port import Commit
from storage.records import LeaseRecord

Meeting = Callable[..., AbstractAsyncContextManager[list[dict[str, Any]]]]


def writes_leases(commit: Commit) -> bool:
    return any(isinstance(row, LeaseRecord) for row in commit.written)


@pytest.fixture
def meeting(house: Any) -> Meeting:
    """Frames sent while a grant of another token is being written, so that the next batch has them all."""

    @asynccontextmanager
    async def met(worker: Any, *frames: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        """Their answers, in the order in which they came, once the body has ended."""
        await house.put("github/before")
        house.storage.slow, house.storage.gate = writes_leases, asyncio.Event()
        await worker.send(type="lease", id=1000, token="github/before")
        await house.until(lambda: house.storage.waiting == 1)
        for number, frame in enumerate(frames):
            await worker.send(**{"type": "lease", "id": number, "token": "github/ci", **frame})
        await house.until(lambda: any(each.in_flight == len(frames) + 1 for each in house.broker.sessions))
        answers: list[dict[str, Any]] = []
        yield answers
        gate, house.storage.gate = house.storage.gate, None
        gate.set()
        assert (await worker.receive())["id"] == 1000
        answers += [await worker.receive() for _ in frames]

    return met


async def granted_entries(house: Any, count: int) -> list[Any]:
    entries = await house.entries_within(LeaseGranted, count)
    return [entry for entry in entries if entry.token == "github/ci"]


async def test_the_same_asked_for_again_gets_what_the_first_got(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """One lease, written once; each hand-out of the value has an entry; answers come in the order of asking."""
    async with welcomed(house) as worker:
        async with meeting(worker, *[{}] * 8) as answers:
            pass
        assert [answer.pop("id") for answer in answers] == list(range(8))
        assert answers == [answers[0]] * 8
        row = await house.row(answers[0]["lease"])
        assert (row.rev, row.expires_at.timestamp()) == (1, answers[0]["expires_at"])
        assert [entry.lease for entry in await granted_entries(house, 9)] == [row.lease] * 8


async def test_a_lease_that_is_held_is_renewed_once_for_all_who_ask(
    house: Any, welcomed: Any, meeting: Meeting
) -> None:
    """Its next revision is what all of them get, and what memory holds."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        async with meeting(worker, *[{}] * 3) as answers:
            pass
        row = await house.row(lease)
        assert [answer["expires_at"] for answer in answers] == [row.expires_at.timestamp()] * 3
        assert row.rev == 2
        assert house.broker.context.holdings.by_lease[lease].record == row


async def test_another_wish_is_decided_after_the_first(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """The last wish holds, as when they had come one after the other; whoever comes behind it does not overtake it."""
    async with welcomed(house) as worker:
        async with meeting(worker, {"ttl_s": 10}, {"ttl_s": 40}, {"ttl_s": 10}, {"ttl_s": 40}) as answers:
            pass
        assert [(answer["id"], round(answer["ttl_s"])) for answer in answers] == [(0, 10), (1, 40), (2, 10), (3, 40)]
        assert len({answer["lease"] for answer in answers}) == 1
        assert (await house.row(answers[0]["lease"])).ttl_s == 40


async def test_each_stage_has_a_lease_of_its_own(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """Who asks for the former version does not join who asks for the current one."""
    await house.put("github/ci", b"next")
    both = NewGrant(subject="worker:ci-1", pattern="github/*", ttl_s=60, max_ttl_s=3600, previous=True)
    await house.services.grants.add(both, actor="admin:root")
    await house.settled()
    async with welcomed(house) as worker:
        async with meeting(worker, {}, {"stage": "previous"}, {}, {"stage": "previous"}) as answers:
            pass
        assert [answer["value"] for answer in answers] == ["next", "s3cret", "next", "s3cret"]
        assert len({answer["lease"] for answer in answers}) == 2


async def test_what_is_asked_for_after_a_release_is_another_lease(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """The worker gets nothing that it has just given back."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        async with meeting(worker, {}, {"type": "release", "leases": [lease]}, {}) as answers:
            pass
        assert [answer["id"] for answer in answers] == [0, 1, 2]
        assert (answers[0]["lease"], answers[1]["leases"]) == (lease, [lease])
        assert answers[2]["lease"] != lease
        assert {row.lease: row.state for row in await house.leases()}[lease] == "released"


async def test_a_renewal_between_keeps_its_place(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """Requests behind it are answered after it."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        async with meeting(worker, {"ttl_s": 10}, {"type": "renew", "leases": [lease]}, {"ttl_s": 10}) as answers:
            pass
        assert [(answer["id"], answer["type"]) for answer in answers] == [
            (0, "granted"),
            (1, "renewed"),
            (2, "granted"),
        ]
        assert answers[2]["lease"] == lease


async def test_a_lost_commit_is_decided_anew_for_each_of_them(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """Alone, the first makes the lease and the others renew it; none is lost."""
    async with welcomed(house) as worker:
        async with meeting(worker, {}, {}, {}) as answers:
            lost = iter([True])

            def refuse(commit: Commit) -> bool:
                if writes_leases(commit) and next(lost, False):
                    raise Conflict("somebody else's")
                return False

            house.storage.refuse = refuse
        assert [answer["id"] for answer in answers] == [0, 1, 2]
        (lease,) = {answer["lease"] for answer in answers}
        assert (await house.row(lease)).rev == 3


async def test_where_the_commit_fails_all_of_them_are_told_so(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """None is served with what is not durable, and nothing is held."""
    async with welcomed(house) as worker:
        async with meeting(worker, {}, {}, {}) as answers:
            house.storage.refuse = writes_leases
        assert [(answer["id"], answer["code"]) for answer in answers] == [(n, "unavailable") for n in range(3)]
        assert [row.token for row in await house.leases()] == ["github/before"]
        assert [held.record.token for held in house.broker.context.holdings] == ["github/before"]


async def test_who_hangs_up_meanwhile_holds_nothing(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """What was written for it runs out by itself."""
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        house.storage.slow, house.storage.gate = writes_leases, asyncio.Event()
        for number in range(3):
            await worker.send(type="lease", id=number, token="github/ci")
        await house.until(lambda: house.storage.waiting == 1)
    await house.until(lambda: not len(house.broker.context.holdings))
    house.storage.gate.set()
    await house.broker.desk.drained()
    assert not len(house.broker.context.holdings)
    assert len(await house.leases()) == 1


@pytest.mark.parametrize(("characters", "rev"), [(JOINED_CHARS_MAX, 1), (JOINED_CHARS_MAX + 1, 3)])
async def test_a_long_value_is_given_in_one_batch_after_the_other(
    house: Any, welcomed: Any, meeting: Meeting, characters: int, rev: int
) -> None:
    """So that between them it is seen whether the worker reads."""
    await house.put("github/ci", b"x" * characters)
    async with welcomed(house) as worker:
        async with meeting(worker, {}, {}, {}) as answers:
            pass
        assert [(answer["id"], len(answer["value"])) for answer in answers] == [(n, characters) for n in range(3)]
        assert (await house.row(answers[0]["lease"])).rev == rev


async def test_what_memory_lacks_is_read_once_for_all_who_ask(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """They meet again after it was fetched, and get one lease as if it had been there."""
    async with welcomed(house) as worker:
        async with meeting(worker, *[{}] * 4) as answers:
            house.broker.context.heads.forget_all()
        assert [answer["id"] for answer in answers] == list(range(4))
        assert (await house.row(answers[0]["lease"])).rev == 1


async def test_who_lost_the_right_while_all_waited_gets_nothing(house: Any, welcomed: Any, meeting: Meeting) -> None:
    """Each of them is refused by itself; what the session held of the token is taken from it."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        async with meeting(worker, *[{}] * 3) as answers:
            await house.services.grants.remove(house.granted.id, actor="admin:root")
            await house.settled()
        await house.broker.desk.drained()
        assert "granted" not in {answer["type"] for answer in answers}
        assert house.broker.desk.counts.failed == {"denied": 3}
        assert (await house.row(lease)).state == "revoked"
