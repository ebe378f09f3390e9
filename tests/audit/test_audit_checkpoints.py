"""When checkpoints are made, what becomes of those that fail, and when readiness turns red."""

from __future__ import annotations

from typing import Any

import pytest

from broker.audit.checkpoint import Checkpoint
from broker.audit.note import Verifier
from broker.audit.settings import AuditSettings
from broker.errors import Unavailable
from storage.errors import StorageFull
from storage.port import Commit
from storage.records.audit import CheckpointRecord


async def sizes(storage: Any) -> list[int]:
    """The sizes of log 1's checkpoints."""
    return [record.size for record in (await storage.select(CheckpointRecord, prefix=(1,))).records]


async def test_an_open_log_is_signed_at_once(opening: Any, storage: Any, vkey: str) -> None:
    """Before anybody may write, the entry that opens the log is under a checkpoint."""
    async with opening() as journal:
        (record,) = (await storage.select(CheckpointRecord)).records
        head = Checkpoint.parse(Verifier(vkey).open(record.note)).head
        assert (record.size, head.size, head.origin) == (1, 1, "cl-test/audit/one/1")
        assert journal.vkey == vkey


async def test_a_second_with_entries_makes_one_checkpoint(
    opening: Any, storage: Any, granted: Any, clock: Any, signed: Any
) -> None:
    """Entries are signed within a second of becoming durable; seconds without entries make nothing."""
    async with opening() as journal:
        await journal.commit(granted(3))
        await clock.advance(0.9)
        assert journal.unsigned == 3
        await signed(journal)
        await clock.advance(5.0)
        assert await sizes(storage) == [1, 4]


async def test_many_entries_do_not_wait_for_the_second(opening: Any, storage: Any, granted: Any, until: Any) -> None:
    """At the set number of entries a checkpoint is made at once."""
    async with opening(settings=AuditSettings(checkpoint_entries=4, close_deadline_s=1.0)) as journal:
        await journal.commit(granted(3))
        assert await sizes(storage) == [1]
        await journal.commit(granted(2, 3))
        await until(lambda: journal.unsigned == 0)
        assert await sizes(storage) == [1, 6]


async def test_a_checkpoint_that_fails_is_tried_again(
    opening: Any, unsteady: Any, granted: Any, clock: Any, signed: Any
) -> None:
    """A second in which storage fails costs nothing but time: the next checkpoint covers the entries."""
    async with opening(unsteady) as journal:
        await journal.commit(granted(3))
        unsteady.down = True
        await clock.advance(1.0)
        assert (journal.counters.checkpoint_failures, journal.unsigned) == (1, 3)
        unsteady.down = False
        await signed(journal)
        assert await sizes(unsteady) == [1, 4]


async def test_readiness_turns_red_after_ten_unsigned_seconds(
    opening: Any, unsteady: Any, granted: Any, clock: Any, signed: Any
) -> None:
    """An entry without a checkpoint for over ten seconds makes the log unhealthy, until a checkpoint succeeds."""
    async with opening(unsteady) as journal:
        await journal.commit(granted(1))
        unsteady.down = True
        await clock.advance(10.0)
        assert journal.healthy()
        await clock.advance(0.5)
        assert not journal.healthy()
        unsteady.down = False
        await signed(journal)
        assert journal.healthy()


async def test_readiness_is_red_for_five_seconds_after_a_full_disk(
    opening: Any, storage: Any, granted: Any, clock: Any
) -> None:
    """Also while other commits find room: where one does not, grants fail."""

    class Full:
        room = True

        def __getattr__(self, name: str) -> Any:
            return getattr(storage, name)

        async def commit(self, commit: Commit) -> Any:
            if not self.room:
                raise StorageFull
            return await storage.commit(commit)

    disk = Full()
    async with opening(disk) as journal:
        disk.room = False
        with pytest.raises(Unavailable):
            await journal.commit(granted(1))
        disk.room = True
        await journal.commit(granted(1, 1))
        assert not journal.healthy()
        await clock.advance(5.5)
        assert journal.healthy()


async def test_a_checkpoint_that_landed_unseen_is_no_conflict(
    opening: Any, unsteady: Any, granted: Any, signed: Any
) -> None:
    """When a checkpoint was written but the answer was lost, the next attempt takes it as done."""
    lost = [True]

    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(unsteady, name)

        async def commit(self, commit: Commit) -> Any:
            committed = await unsteady.commit(commit)
            if lost and any(isinstance(row, CheckpointRecord) and row.size == 3 for row in commit.inserts):
                lost.clear()
                raise TimeoutError
            return committed

    async with opening(Deaf()) as journal:
        await journal.commit(granted(2))
        await signed(journal)
        assert (journal.counters.checkpoint_failures, journal.healthy()) == (1, True)
        assert await sizes(unsteady) == [1, 3]


async def test_a_planted_checkpoint_is_not_taken_for_ours(
    *, opening: Any, storage: Any, granted: Any, clock: Any, tamper: Any, until: Any
) -> None:
    """A row that somebody put where the next checkpoint goes is a failure, not a success; later sizes go on."""
    async with opening() as journal:
        await journal.commit(granted(2))
        tamper("INSERT INTO checkpoint (rev, log, size, note, signed_at) VALUES (1, 1, 3, 'forged', 0)")
        await clock.advance(1.0)
        await until(lambda: journal.counters.checkpoint_failures == 1)
        assert journal.unsigned == 2
        await journal.commit(granted(1, 2))
        await clock.advance(1.0)
        await until(lambda: journal.unsigned == 0)
    assert await sizes(storage) == [1, 3, 4, 5]


@pytest.mark.parametrize("entries", [1, 5])
async def test_counters_count(opening: Any, granted: Any, signed: Any, entries: int) -> None:
    """What metrics read is what happened."""
    async with opening() as journal:
        await journal.commit(granted(entries))
        await signed(journal)
        counters = journal.counters
        assert (counters.commits, counters.entries, counters.checkpoints) == (1, 1 + entries, 2)
