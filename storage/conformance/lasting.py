"""Laws of the handle: what outlives it, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from storage import records
from storage.conformance.opener import Opener
from storage.conformance.samples import at, lease, sample
from storage.errors import Unavailable
from storage.port import AuditAppend, Commit
from storage.records import LeaseRecord, TokenRecord


class LastingLaws:
    """What was acknowledged is there for the next handle."""

    async def test_everything_outlives_the_handle(self, opener: Opener) -> None:
        """Records of every type, the feed and the audit numbers are found by a handle opened later."""
        made = [sample(kind, 1) for kind in records.ALL]
        async with opener() as storage:
            done = await storage.commit(
                Commit(inserts=made, audit=AuditAppend(9, (b"a", b"b")), announce=[("lease", ("x",))])
            )
        async with opener() as storage:
            for record in made:
                assert await storage.get(type(record), record.key) == record
            assert [change.key for change in await storage.feed(0)] == [("x",)]
            more = await storage.commit(Commit(audit=AuditAppend(9, (b"c",)), announce=[("lease", ("y",))]))
            assert (more.first_seq, more.position) == (2, done.position + 1)

    async def test_positions_outlive_the_handle_and_their_lines(self, opener: Opener) -> None:
        """A handle opened after the feed was pruned to the end goes on from the newest position."""
        async with opener() as storage:
            await storage.commit(Commit(announce=[("lease", ("x",))] * 4))
            await storage.prune_feed(4)
        async with opener() as storage:
            assert await storage.position() == 4
            assert (await storage.commit(Commit(announce=[("lease", ("y",))]))).position == 5

    async def test_accepted_commits_finish_before_closing(self, opener: Opener) -> None:
        """Leaving the handle while commits are on their way answers them all, and what succeeded is there."""
        async with asyncio.TaskGroup() as tasks, opener() as storage:
            calls = [tasks.create_task(_try(storage.commit(Commit(inserts=[lease(n)])))) for n in range(50)]
            await asyncio.sleep(0)
        succeeded = {lease(n).key for n, call in enumerate(calls) if call.result()}
        async with opener() as storage:
            found = {record.key for record in (await storage.select(LeaseRecord)).records}
        assert found == succeeded

    async def test_a_closed_handle_serves_nobody(self, opener: Opener) -> None:
        """Every method of a closed handle raises Unavailable, and nothing is written."""
        async with opener() as closed:
            pass
        calls = (
            lambda: closed.get(LeaseRecord, ("x",)),
            lambda: closed.get_many(LeaseRecord, [("x",)]),
            lambda: closed.select(LeaseRecord),
            lambda: closed.due(LeaseRecord, "due_at", at(0)),
            lambda: closed.commit(Commit(inserts=[sample(TokenRecord, 1)])),
            lambda: closed.feed(0),
            lambda: closed.wait(0, 60),
            closed.position,
            lambda: closed.prune(LeaseRecord, "due_at", at(0)),
            lambda: closed.prune_feed(1),
            closed.check,
        )
        for call in calls:
            with pytest.raises(Unavailable):
                await call()
        async with opener() as storage:
            assert (await storage.select(TokenRecord)).records == []

    async def test_check_tells_the_schema(self, opener: Opener) -> None:
        """A storage that serves says so, with its schema version and some facts."""
        async with opener() as storage:
            health = await storage.check()
            assert health.schema >= 1
            assert health.facts


async def _try(call: Awaitable[object]) -> bool:
    try:
        await call
    except Unavailable:
        return False
    return True
