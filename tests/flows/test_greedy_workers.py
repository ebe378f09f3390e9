"""One worker that asks without end: it waits for itself, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from broker.admin.asked import NewVersion
from broker.leases.terms import WORTH_RENEWING_S
from storage.errors import OutOfBounds
from storage.port import Commit
from storage.records import LeaseRecord


def written(commit: Commit) -> int:
    return sum(isinstance(row, LeaseRecord) for row in commit.written)


@pytest.fixture
async def both(house: Any, prepare: Any) -> Any:
    """A house with a second worker, modest, beside ci-1."""
    await prepare(house, worker="modest")
    return house


async def test_asking_for_one_lease_a_hundred_times_delays_nobody_else(both: Any, welcomed: Any) -> None:
    """Requests that cannot be decided together take a commit each; another worker's needs no more than three."""
    async with welcomed(both) as greedy, welcomed(both, "modest") as modest:
        await greedy.lease("github/ci")
        for number in range(100, 300):
            await greedy.send(type="lease", id=number, token="github/ci", ttl_s=30 + number % 2)
        await greedy.answer(100)
        before = both.broker.desk.counts.batches
        await modest.lease("github/ci")
        assert both.broker.desk.counts.batches - before <= 3
        assert all([(await greedy.answer(number))["type"] == "granted" for number in range(101, 300)])


async def test_requests_that_name_many_leases_are_bounded_together(house: Any, welcomed: Any) -> None:
    """Over 2048 leases in unanswered requests, the next is `rate_limited`; answered ones make room."""
    named = [{"lease": f"x{number}", "version": 1} for number in range(1000)]
    async with welcomed(house) as worker:
        for _ in range(3):
            for number in range(1, 5):
                await worker.send(type="resume", id=number, leases=named)
            answers = [await worker.answer(number) for number in range(1, 5)]
            assert [answer["type"] for answer in answers[:2]] == ["resumed", "resumed"]
            assert answers[3]["code"] == "rate_limited" or answers[3]["type"] == "resumed"
            assert "rate_limited" in {answer.get("code") for answer in answers[2:]}


async def test_a_full_queue_holds_up_no_revocation(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """While a worker has as much waiting as it may, what it lost is still taken from it, and rotations reach it."""
    async with open_house(leases={"queue_max": 8}) as house:
        await prepare(house)
        await house.put("github/other")
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
            for number in range(100, 200):
                await worker.send(type="lease", id=number, token="github/other")
            await house.services.putter.put(NewVersion(token="github/ci", value=b"two"), actor="admin:root")
            assert (await worker.push(within_s=0.9))["value"] == "two"


async def test_a_batch_never_grows_beyond_what_a_commit_can_hold(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """Renewals of many leases at one moment are spread over commits, and each is made."""
    async with open_house(leases={"batch_leases_max": 8}) as house, AsyncExitStack() as stack:
        await prepare(house)
        for number in range(4):
            await house.put(f"github/t{number}")
        workers = [await stack.enter_async_context(welcomed(house)) for _ in range(5)]
        held = [[(await worker.lease(f"github/t{n}", ttl_s=30))["lease"] for n in range(4)] for worker in workers]
        sizes: list[int] = []
        await asyncio.sleep(WORTH_RENEWING_S * 2)

        def seen(commit: Commit) -> bool:
            sizes.append(written(commit))
            return False

        house.storage.refuse = seen
        for worker, leases in zip(workers, held, strict=True):
            await worker.send(type="renew", id=900, leases=leases)
        for worker, leases in zip(workers, held, strict=True):
            assert {live["lease"] for live in (await worker.answer(900))["leases"]} == set(leases)
        assert max(sizes) <= 8


async def test_a_commit_that_storage_cannot_hold_fails_those_alone_who_made_it_so(both: Any, welcomed: Any) -> None:
    """A bound that one request breaks is not told to others whose requests were decided beside it."""

    def too_large(commit: Commit) -> bool:
        if written(commit) > 1:
            raise OutOfBounds("one commit holds less")
        return False

    async with welcomed(both) as one, welcomed(both, "modest") as other:
        both.storage.refuse = too_large
        for number in range(1, 9):
            await one.send(type="lease", id=number, token="github/ci")
            await other.send(type="lease", id=number, token="github/ci")
        for worker in (one, other):
            assert {(await worker.answer(number))["type"] for number in range(1, 9)} == {"granted"}
