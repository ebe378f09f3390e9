"""Laws of the audit log as storage keeps it: numbered in commit order, without gaps."""

from __future__ import annotations

import asyncio

import pytest

from storage.bounds import unframe
from storage.conformance.opener import Opener
from storage.conformance.samples import lease
from storage.errors import Conflict, OutOfBounds
from storage.port import AUDIT_BYTES_MAX, AUDIT_ENTRY_MAX, AuditAppend, Commit, Committed, Storage
from storage.records import AuditBlockRecord


class AuditLaws:
    """Every entry has the number after the one before it, and the block that holds it says so."""

    async def test_entries_number_from_zero_without_gaps(self, opener: Opener) -> None:
        """The first entry of a log is number 0, each commit goes on where the one before ended."""
        async with opener() as storage:
            seqs = [
                (await storage.commit(Commit(audit=AuditAppend(1, (b"e",) * count)))).first_seq
                for count in (3, 1, 2, 5)
            ]
            assert seqs == [0, 3, 4, 6]

    async def test_a_block_holds_the_entries_of_its_commit(self, opener: Opener) -> None:
        """One block per append, with its number, its count and the entries as they were given."""
        entries = (b"first", b"\0", b"\xff" * 300)
        async with opener() as storage:
            await storage.commit(Commit(audit=AuditAppend(1, (b"before", b"it"))))
            done = await storage.commit(Commit(audit=AuditAppend(1, entries)))
            block = await storage.get(AuditBlockRecord, (1, done.first_seq))
            assert block is not None
            assert (block.rev, block.log, block.seq, block.count) == (1, 1, 2, 3)
            assert tuple(unframe(block.entries)) == entries

    async def test_logs_number_each_for_itself(self, opener: Opener) -> None:
        """Appending to one log moves no other, whatever their numbers."""
        async with opener() as storage:
            seqs = [
                (await storage.commit(Commit(audit=AuditAppend(log, (b"e", b"e"))))).first_seq
                for log in (1, 2, 1, 0, 2, 2**62, 1)
            ]
            assert seqs == [0, 0, 2, 0, 2, 0, 4]

    async def test_a_conflict_leaves_no_gap(self, opener: Opener) -> None:
        """A commit that lost used up no number, on its way together with others or alone."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(0)]))
            append = AuditAppend(1, (b"e", b"e"))
            outcomes = await asyncio.gather(
                *(storage.commit(Commit(inserts=[lease(n if n % 3 else 0)], audit=append)) for n in range(30)),
                return_exceptions=True,
            )
            with pytest.raises(Conflict):
                await storage.commit(Commit(inserts=[lease(0)], audit=append))
            last = await storage.commit(Commit(audit=append))
            seqs = [outcome.first_seq for outcome in outcomes if isinstance(outcome, Committed)]
            assert seqs == list(range(0, 40, 2))
            assert last.first_seq == 40

    async def test_handles_share_the_numbers(self, opener: Opener) -> None:
        """Two handles that append to one log at once leave no gap and use no number twice."""
        async with opener() as one, opener() as two:
            async with asyncio.TaskGroup() as tasks:
                writing = [tasks.create_task(_append(handle, turns=12)) for handle in (one, two, one, two)]
            taken = sorted(seq for task in writing for seq in task.result())
            blocks = (await one.select(AuditBlockRecord)).records
            assert taken == list(range(0, 96, 2))
            assert [block.seq for block in blocks] == taken

    async def test_numbers_follow_the_order_of_commits(self, opener: Opener) -> None:
        """Of commits issued in order without waiting, the earlier has the lower number."""
        async with opener() as storage:
            outcomes = await asyncio.gather(
                *(storage.commit(Commit(audit=AuditAppend(1, (str(n).encode(),)))) for n in range(40))
            )
            blocks = (await storage.select(AuditBlockRecord)).records
            assert [outcome.first_seq for outcome in outcomes] == list(range(40))
            assert [int(entry) for block in blocks for entry in unframe(block.entries)] == list(range(40))

    async def test_an_entry_has_a_size(self, opener: Opener) -> None:
        """1 to AUDIT_ENTRY_MAX bytes are kept; none, or one more, is OutOfBounds and nothing is appended."""
        async with opener() as storage:
            await storage.commit(Commit(audit=AuditAppend(1, (b"x", b"y" * AUDIT_ENTRY_MAX))))
            for wrong in ((b"x", b""), (b"x" * (AUDIT_ENTRY_MAX + 1),), ()):
                with pytest.raises(OutOfBounds):
                    await storage.commit(Commit(audit=AuditAppend(1, wrong)))
            block = await storage.get(AuditBlockRecord, (1, 0))
            assert block is not None
            assert [len(entry) for entry in unframe(block.entries)] == [1, AUDIT_ENTRY_MAX]
            assert len((await storage.select(AuditBlockRecord)).records) == 1

    async def test_an_append_has_a_size(self, opener: Opener) -> None:
        """More than AUDIT_BYTES_MAX bytes in one append is OutOfBounds."""
        entries = (b"x" * AUDIT_ENTRY_MAX,) * (AUDIT_BYTES_MAX // AUDIT_ENTRY_MAX + 1)
        async with opener() as storage:
            with pytest.raises(OutOfBounds):
                await storage.commit(Commit(audit=AuditAppend(1, entries)))


async def _append(storage: Storage, turns: int) -> list[int]:
    return [(await storage.commit(Commit(audit=AuditAppend(1, (b"a", b"b"))))).first_seq for _ in range(turns)]
