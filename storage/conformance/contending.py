"""Laws of commit among several callers and handles: compare-and-set, and cancellation."""

from __future__ import annotations

import asyncio

from storage.bounds import unframe
from storage.conformance.opener import Opener
from storage.conformance.samples import following, lease
from storage.errors import Conflict
from storage.port import AuditAppend, Commit, Delete, Storage
from storage.records import AuditBlockRecord, LeaseRecord

_LOG = 3


class ContentionLaws:
    """Of those who change one record at once, one wins; who gives up harms nobody."""

    async def test_one_of_two_handles_wins_each_revision(self, opener: Opener) -> None:
        """Callers of two handles that count one record up lose no step and win no revision twice."""
        async with opener() as one, opener() as two:
            await one.commit(Commit(inserts=[lease(1, acked_version=0)]))
            async with asyncio.TaskGroup() as tasks:
                counting = [tasks.create_task(_count(handle, steps=10)) for handle in (one, two, one, two)]
            won = sorted(rev for task in counting for rev in task.result())
            found = await one.get(LeaseRecord, lease(1).key)
            assert won == list(range(2, 42))
            assert found is not None
            assert (found.acked_version, found.rev) == (40, 41)

    async def test_one_of_many_updates_together_wins(self, opener: Opener) -> None:
        """Of many updates of one revision that are on their way together, exactly one succeeds, and it is stored."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1)]))
            outcomes = await asyncio.gather(
                *(storage.commit(Commit(updates=[following(lease(1), reason=str(n))])) for n in range(30)),
                return_exceptions=True,
            )
            winners = [str(n) for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
            found = await storage.get(LeaseRecord, lease(1).key)
            assert found is not None
            assert [found.reason] == winners
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 29

    async def test_one_of_many_inserts_together_wins(self, opener: Opener) -> None:
        """Of many inserts of one key that are on their way together, by two handles, exactly one succeeds."""
        async with opener() as one, opener() as two:
            outcomes = await asyncio.gather(
                *((one, two)[n % 2].commit(Commit(inserts=[lease(1, reason=str(n))])) for n in range(30)),
                return_exceptions=True,
            )
            winners = [str(n) for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
            found = await one.get(LeaseRecord, lease(1).key)
            assert found is not None
            assert [found.reason] == winners

    async def test_a_cancelled_commit_is_whole_or_absent(self, opener: Opener) -> None:
        """Callers cancelled at any moment leave their commits whole or absent; the others' are all there."""
        async with opener() as storage:
            lasting: set[int] = set()
            for moment in range(12):
                async with asyncio.TaskGroup() as tasks:
                    numbers = range(moment * 10, moment * 10 + 10)
                    calls = {n: tasks.create_task(storage.commit(_whole(n))) for n in numbers}
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    for n in numbers:
                        if n % 3 == 0:
                            calls[n].cancel()
                lasting |= {n for n, call in calls.items() if not call.cancelled()}
            there = {record.acked_version for record in (await storage.select(LeaseRecord)).records}
            announced = {int(str(change.key[0]).rpartition("-")[2]) for change in await storage.feed(0)}
            blocks = (await storage.select(AuditBlockRecord, prefix=(_LOG,))).records
            audited = {int(entry) for block in blocks for entry in unframe(block.entries)}
            assert lasting <= there
            assert {n for n in range(120) if n % 3} <= lasting
            assert there == announced == audited
            assert [block.seq for block in blocks] == list(range(len(there)))

    async def test_storage_serves_on_after_cancellations(self, opener: Opener) -> None:
        """After every caller of a group was cancelled, the next commit and read succeed."""
        async with opener() as storage:
            for moment in range(6):
                async with asyncio.TaskGroup() as tasks:
                    calls = [tasks.create_task(storage.commit(_whole(n))) for n in range(5)]
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    for call in calls:
                        call.cancel()
                async with asyncio.timeout(5):
                    await storage.commit(_whole(100 + moment))
                    assert await storage.get(LeaseRecord, lease(100 + moment).key) is not None
                    for record in (await storage.select(LeaseRecord, limit=5)).records:
                        if record.acked_version < 100:
                            await _remove(storage, record)


def _whole(number: int) -> Commit:
    """A commit with a part of every sort that says which commit it belongs to."""
    return Commit(
        inserts=[lease(number, acked_version=number)],
        audit=AuditAppend(_LOG, (str(number).encode(),)),
        announce=[("lease", lease(number).key)],
    )


async def _remove(storage: Storage, record: LeaseRecord) -> None:
    await storage.commit(Commit(deletes=[Delete(LeaseRecord, record.key, record.rev)]))


async def _count(storage: Storage, steps: int) -> list[int]:
    won: list[int] = []
    while len(won) < steps:
        record = await storage.get(LeaseRecord, lease(1).key)
        assert record is not None
        try:
            await storage.commit(Commit(updates=[following(record, acked_version=record.acked_version + 1)]))
        except Conflict:
            continue
        won.append(record.rev + 1)
    return won
