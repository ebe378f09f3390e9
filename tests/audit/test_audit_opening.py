"""A log's life: numbers, links, closing in order, and what is refused or recorded after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.audit.checkpoint import root_text
from broker.audit.encoding import decode
from broker.audit.entries import LogClosed, LogOpened
from broker.audit.settings import AuditSettings
from broker.audit.source import StorageSource
from broker.audit.tree import leaf_hash, root_of
from broker.audit.verify import verify_live
from broker.errors import Conflict, NotFound, StartRefused, Unavailable
from storage.records.audit import AuditLogRecord

SEQ = "log = 1 AND seq = (SELECT max(seq) FROM audit_block WHERE log = 1)"

ALTER = (
    "UPDATE audit_block SET entries = CAST(replace(CAST(entries AS TEXT), 'lease-3', 'lease-9') AS BLOB) "
    "WHERE log = 1 AND seq = 1"
)


async def entries(storage: Any, log: int) -> list[bytes]:
    """All entries of a log."""
    found = []
    async for batch in StorageSource(storage=storage).batches(log):
        found.extend(batch.entries)
    return found


async def opened_by(storage: Any, log: int) -> LogOpened:
    """The first entry of a log."""
    entry = decode((await entries(storage, log))[0])
    assert isinstance(entry, LogOpened)
    return entry


async def test_first_log_continues_none(opening: Any, storage: Any) -> None:
    """The first log is number 1, says which instance and cluster, and names no log before it."""
    async with opening():
        pass
    opened = await opened_by(storage, 1)
    assert (opened.instance, opened.cluster, opened.previous) == ("one", "cl-test", "")


async def test_closed_log_ends_with_its_closing_entry(opening: Any, storage: Any, granted: Any) -> None:
    """An orderly stop writes log.closed last, covers it with a checkpoint, and marks the row."""
    async with opening() as journal:
        await journal.commit(granted(2))
    assert isinstance(decode((await entries(storage, 1))[-1]), LogClosed)
    newest = await StorageSource(storage=storage).newest_note(1)
    assert newest is not None
    assert newest[0] == 4
    record = await storage.get(AuditLogRecord, (1,))
    assert record.closed_at is not None


async def test_next_log_continues_a_closed_one(opening: Any, storage: Any, granted: Any) -> None:
    """The next log of the instance says where the one before ended, with its root, and that it was closed."""
    async with opening() as journal:
        await journal.commit(granted(2))
    async with opening() as journal:
        assert (journal.record.log, journal.record.previous) == (2, 1)
    opened = await opened_by(storage, 2)
    root = root_of([leaf_hash(entry) for entry in await entries(storage, 1)])
    assert (opened.previous, opened.previous_size, opened.previous_root) == (
        "cl-test/audit/one/1",
        4,
        root_text(root),
    )
    assert (opened.previous_closed, opened.previous_unsigned, opened.accepted_loss) == (True, 0, 0)


async def test_after_a_crash_the_next_log_vouches_for_the_tail(
    opening: Any, crashing: Any, storage: Any, granted: Any, signed: Any
) -> None:
    """Entries that a crash left without a checkpoint are counted, and covered by the root in the next log."""
    async with crashing() as journal:
        await journal.commit(granted(2))
        await signed(journal)
        await journal.commit(granted(3, 2))
    async with opening():
        pass
    opened = await opened_by(storage, 2)
    root = root_of([leaf_hash(entry) for entry in await entries(storage, 1)])
    assert (opened.previous_size, opened.previous_root, opened.previous_closed, opened.previous_unsigned) == (
        6,
        root_text(root),
        False,
        3,
    )


async def test_instances_have_chains_of_their_own(opening: Any, storage: Any) -> None:
    """Numbers belong to the cluster, chains to the instance."""
    for instance in ("one", "two", "one", "two"):
        async with opening(instance=instance):
            pass
    rows = (await storage.select(AuditLogRecord)).records
    assert [(row.log, row.instance, row.previous) for row in rows] == [
        (1, "one", 0),
        (2, "two", 0),
        (3, "one", 1),
        (4, "two", 2),
    ]


async def test_replicas_that_open_at_once_get_numbers_of_their_own(opening: Any, storage: Any, vkey: str) -> None:
    """Eight logs opened at the same moment, two by each instance, have eight numbers and unbroken chains."""

    async def live(instance: str) -> None:
        async with opening(instance=instance):
            await asyncio.sleep(0)

    await asyncio.gather(*(live(f"i{number % 4}") for number in range(8)))
    assert [row.log for row in (await storage.select(AuditLogRecord)).records] == list(range(1, 9))
    problems = (await verify_live(storage, vkey=vkey)).problems
    assert [problem for problem in problems if "continues" in problem] == []


async def test_starts_of_one_instance_at_once_all_get_a_log(opening: Any, storage: Any) -> None:
    """Each fences the newest log; whoever finds it fenced or closed meanwhile looks again."""

    async def live() -> None:
        async with opening(instance="one"):
            await asyncio.sleep(0)

    async with opening(instance="one"):
        await asyncio.gather(*(live() for _ in range(8)))
    assert [row.log for row in (await storage.select(AuditLogRecord)).records] == list(range(1, 10))


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (f"DELETE FROM audit_block WHERE {SEQ}", "9 entries are signed for, but 5 are stored"),
        ("DELETE FROM audit_block WHERE log = 1 AND seq = 1", "9 entries are signed for, but 1 are stored"),
        ("DELETE FROM audit_block WHERE log = 1", "9 entries are signed for, but 0 are stored"),
        (ALTER, "an entry is altered"),
        ("UPDATE checkpoint SET note = 'forged' WHERE log = 1", "does not verify"),
        (
            "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE log = 1 AND size = 1) WHERE log = 1",
            "filed under log 1 and 9 entries, but signed for cl-test/audit/one/1, 1",
        ),
    ],
)
async def test_a_log_changed_after_a_crash_refuses_to_start(
    *, opening: Any, crashing: Any, granted: Any, signed: Any, tamper: Any, sql: str, reason: str
) -> None:
    """When what is stored is not what the newest checkpoint vouches for, nothing is served, and the reason is named."""
    async with crashing() as journal:
        await journal.commit(granted(4))
        await journal.commit(granted(4, 4))
        await signed(journal)
    tamper(sql)
    with pytest.raises(StartRefused, match=reason):
        async with opening():
            pass


async def test_a_block_missing_from_the_unsigned_tail_refuses_to_start(
    opening: Any, crashing: Any, granted: Any, tamper: Any
) -> None:
    """Storage never leaves a hole, so one behind the last checkpoint is tampering too."""
    async with crashing() as journal:
        await journal.commit(granted(2))
        await journal.commit(granted(2, 2))
    tamper("DELETE FROM audit_block WHERE log = 1 AND seq = 1")
    with pytest.raises(StartRefused, match="missing"):
        async with opening():
            pass


async def test_another_key_refuses_to_start(opening: Any, crashing: Any) -> None:
    """A log that this cluster's key did not sign is not continued."""
    async with crashing():
        pass
    with pytest.raises(StartRefused, match="not signed by cl-test/audit"):
        async with opening(seed=bytes(32)):
            pass


async def test_accepted_loss_is_recorded(
    *, opening: Any, crashing: Any, storage: Any, granted: Any, signed: Any, tamper: Any, vkey: str
) -> None:
    """With the loss accepted the broker starts, the next log says how much is gone, and the audit notes it."""
    async with crashing() as journal:
        await journal.commit(granted(4))
        await journal.commit(granted(4, 4))
        await signed(journal)
    tamper(f"DELETE FROM audit_block WHERE {SEQ}")
    async with opening(accept_loss=True):
        pass
    opened = await opened_by(storage, 2)
    assert (opened.previous_size, opened.accepted_loss) == (5, 4)
    report = await verify_live(storage, vkey=vkey)
    assert report.problems == []
    assert any("entries 5 to 8 are missing" in note and "accepted" in note for note in report.notes)


async def test_an_altered_log_stays_a_problem_after_its_loss_was_accepted(
    *, opening: Any, crashing: Any, storage: Any, granted: Any, signed: Any, tamper: Any, vkey: str
) -> None:
    """Accepting a loss lets the broker start; it does not make altered entries good."""
    async with crashing() as journal:
        await journal.commit(granted(4))
        await signed(journal)
    tamper(ALTER)
    async with opening(accept_loss=True):
        pass
    assert (await opened_by(storage, 2)).accepted_loss == 5
    assert not (await verify_live(storage, vkey=vkey)).ok


async def test_a_closed_log_is_not_read_again(opening: Any, granted: Any, tamper: Any, storage: Any) -> None:
    """After an orderly stop only the newest checkpoint is checked; the whole log is left to the audit."""
    async with opening() as journal:
        await journal.commit(granted(4))
    tamper("UPDATE audit_block SET entries = X'00' WHERE log = 1 AND seq = 1")
    async with opening() as journal:
        assert journal.record.log == 2
    assert (await opened_by(storage, 2)).previous_closed


async def test_storage_that_fails_at_the_close_leaves_a_crash(
    opening: Any, unsteady: Any, storage: Any, granted: Any
) -> None:
    """When the close cannot be written nothing is raised, and the next log says that it was not in order."""
    async with opening(unsteady) as journal:
        await journal.commit(granted(1))
        unsteady.down = True
    unsteady.down = False
    async with opening():
        pass
    assert not (await opened_by(storage, 2)).previous_closed


async def test_a_commit_that_never_lands_prevents_an_orderly_close(
    opening: Any, unsteady: Any, storage: Any, granted: Any, until: Any
) -> None:
    """While a commit is on its way nobody may say that the log is complete; after the deadline it is cut off."""
    settings = AuditSettings(commit_deadline_s=0.02, close_deadline_s=0.05)
    async with opening(unsteady, settings=settings) as journal:
        unsteady.hold = lambda commit: commit.audit is not None
        with pytest.raises(Unavailable):
            await journal.commit(granted(1))
        await until(lambda: unsteady.held == 1)
    assert not isinstance(decode((await entries(storage, 1))[-1]), LogClosed)


async def test_the_body_s_own_error_comes_out_as_it_is(opening: Any, storage: Any) -> None:
    """An error of the code that uses the journal is not wrapped, and the log is still closed in order."""
    with pytest.raises(NotFound, match="mine"):
        async with opening():
            raise NotFound("mine")
    assert (await storage.get(AuditLogRecord, (1,))).closed_at is not None


async def test_cancellation_closes_in_order(opening: Any, storage: Any, until: Any) -> None:
    """A process that is told to stop by cancellation leaves a closed log."""
    started = asyncio.Event()

    async def live() -> None:
        async with opening():
            started.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(live())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await storage.get(AuditLogRecord, (1,))).closed_at is not None


async def test_storage_that_is_down_does_not_start(opening: Any, unsteady: Any) -> None:
    """A log that cannot be written is not opened."""
    unsteady.down = True
    with pytest.raises(Unavailable):
        async with opening(unsteady):
            pass


async def test_a_log_that_was_taken_over_takes_nothing_more(
    opening: Any, storage: Any, granted: Any, vkey: str
) -> None:
    """A process that only stood still cannot append behind what its successor read, with or without other changes."""
    async with opening() as first:
        await first.commit(granted(2))
        async with opening() as second:
            before = await entries(storage, 1)
            with pytest.raises(Conflict):
                await first.commit(granted(1, 2))
            await second.commit(granted(1, 3))
        assert await entries(storage, 1) == before
    assert await entries(storage, 1) == before
    assert (await opened_by(storage, 2)).previous_size == len(before)
    report = await verify_live(storage, vkey=vkey)
    assert report.problems == []
