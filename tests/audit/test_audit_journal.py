"""The journal: one commit with what it describes, a deadline that never loses the tree, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from broker.audit.entries import LeaseGranted, LeasesRenewed
from broker.audit.errors import LogBroken
from broker.audit.settings import AuditSettings
from broker.audit.verify import verify_live
from broker.errors import BadRequest, Conflict, Unavailable
from storage.port import Commit
from storage.records.audit import AuditLogRecord
from storage.records.leases import SessionRecord

Granted = Callable[..., list[LeaseGranted]]
HASTY = AuditSettings(commit_deadline_s=0.02, close_deadline_s=1.0)


def held_leases(commit: Commit) -> bool:
    """Hold every commit back that records a grant."""
    return commit.audit is not None and b"lease.granted" in commit.audit.entries[0]


@pytest.fixture
def session(clock: Any) -> SessionRecord:
    """Some record to be written along."""
    return SessionRecord(session="s", worker="w", instance="one", source="::1", client="t/1", connected_at=clock.now())


async def test_change_and_entries_are_one(opening: Any, storage: Any, granted: Granted, session: SessionRecord) -> None:
    """When the record cannot be written, its entries are not in the log either, and the error is the broker's."""
    async with opening() as journal:
        first = await journal.commit(granted(3), inserts=[session], announce=[("session", session.key)])
        assert (first.first_seq, first.position > 0) == (1, True)
        with pytest.raises(Conflict):
            await journal.commit(granted(2, 3), inserts=[session])
        assert (await journal.commit(granted(1, 5))).first_seq == 4
    assert await storage.get(SessionRecord, ("s",)) == session


async def test_plain_commit_needs_no_entry(opening: Any, storage: Any, session: SessionRecord) -> None:
    """A change that no entry describes goes the same way and takes no number."""
    async with opening() as journal:
        assert (await journal.commit((), inserts=[session])).first_seq == -1
        assert journal.unsigned == 0
    assert await storage.get(SessionRecord, ("s",)) == session


async def test_numbers_follow_the_order_of_calls(opening: Any, granted: Granted) -> None:
    """Commits issued one after the other by one caller are numbered in that order."""
    async with opening() as journal:
        landed = await asyncio.gather(*(journal.commit(granted(number + 1)) for number in range(5)))
    assert [committed.first_seq for committed in landed] == [1, 2, 4, 7, 11]


async def test_late_commit_is_refused_and_still_reaches_the_tree(
    *, opening: Any, unsteady: Any, granted: Granted, until: Any, signed: Any, vkey: str
) -> None:
    """A commit that storage confirms after the deadline is Unavailable to its caller, and the log verifies with it."""
    async with opening(unsteady, settings=HASTY) as journal:
        unsteady.hold = held_leases
        with pytest.raises(Unavailable, match=r"within 0\.02 s"):
            await journal.commit(granted(2))
        assert (journal.counters.late, journal.unsigned) == (1, 0)
        await until(lambda: unsteady.held == 1)
        unsteady.gates[0].set()
        await until(lambda: journal.unsigned == 2)
        await signed(journal)
    report = await verify_live(unsteady, vkey=vkey)
    assert (report.problems, report.notes, report.entries) == ([], [], 4)


async def test_cancelled_caller_leaves_the_tree_right(
    opening: Any, unsteady: Any, granted: Granted, until: Any, vkey: str
) -> None:
    """A caller that is cancelled while storage writes gets its cancellation; the entries are in log and tree."""
    async with opening(unsteady) as journal:
        unsteady.hold = held_leases
        caller = asyncio.get_running_loop().create_task(journal.commit(granted(2)))
        await until(lambda: unsteady.held == 1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        unsteady.gates[0].set()
        await until(lambda: journal.unsigned == 2)
    assert (await verify_live(unsteady, vkey=vkey)).problems == []


async def test_confirmations_out_of_order_grow_the_tree_in_order(
    *, opening: Any, unsteady: Any, granted: Granted, until: Any, signed: Any, vkey: str
) -> None:
    """When the later of two commits is confirmed first, no checkpoint is made over it until the earlier one is in."""
    async with opening(unsteady) as journal:
        unsteady.hold = held_leases
        loop = asyncio.get_running_loop()
        first = loop.create_task(journal.commit(granted(2)))
        await until(lambda: unsteady.held == 1)
        second = loop.create_task(journal.commit(granted(3, 2)))
        await until(lambda: unsteady.held == 2)
        unsteady.gates[1].set()
        assert (await second).first_seq == 3
        assert journal.unsigned == 3
        before = journal.counters.checkpoints
        await journal._checkpointer.flush()
        assert journal.counters.checkpoints == before
        unsteady.gates[0].set()
        assert (await first).first_seq == 1
        await signed(journal)
    report = await verify_live(unsteady, vkey=vkey)
    assert (report.problems, report.notes) == ([], [])


async def test_doubtful_commit_that_was_written_is_found(
    opening: Any, unsteady: Any, granted: Granted, signed: Any, vkey: str
) -> None:
    """When storage wrote a commit and then lost the answer, the caller is refused and the tree finds the entries."""
    async with opening(unsteady) as journal:
        unsteady.deny_written = 1
        with pytest.raises(Unavailable):
            await journal.commit(granted(2))
        assert (await journal.commit(granted(1, 2))).first_seq == 3
        await signed(journal)
        assert (journal.counters.doubtful, journal.counters.healed) == (1, 1)
    report = await verify_live(unsteady, vkey=vkey)
    assert (report.problems, report.notes) == ([], [])


async def test_doubtful_last_commit_does_not_spoil_the_close(
    opening: Any, unsteady: Any, granted: Granted, vkey: str
) -> None:
    """A doubtful commit that was written just before the close is under the final checkpoint."""
    async with opening(unsteady) as journal:
        unsteady.deny_written = 1
        with pytest.raises(Unavailable):
            await journal.commit(granted(2))
    report = await verify_live(unsteady, vkey=vkey)
    assert (report.problems, report.notes, report.entries) == ([], [], 4)


async def test_a_stranger_s_block_in_a_gap_is_not_signed(
    *, opening: Any, unsteady: Any, granted: Granted, tamper: Any, clock: Any
) -> None:
    """A block that this process did not write never comes under its signature; the log turns unhealthy instead."""
    async with opening(unsteady) as journal:
        unsteady.down = True
        with pytest.raises(Unavailable):
            await journal.commit(granted(1))  # doubtful, and in truth never written
        unsteady.down = False
        forged = b'{"event":"lease.granted"}'
        tamper(
            "INSERT INTO audit_block (rev, log, seq, count, entries) VALUES (1, 1, 1, 1, ?)",
            (len(forged).to_bytes(2, "big") + forged,),
        )
        assert (await journal.commit(granted(1, 1))).first_seq == 2
        await clock.advance(5.0)
        assert journal.unsigned == 1
        await clock.advance(6.0)
        assert (journal.unsigned, journal.healthy()) == (1, False)


async def test_storage_refusals_become_the_broker_s(
    opening: Any, unsteady: Any, granted: Granted, session: SessionRecord
) -> None:
    """Each storage error comes out as the broker's own, with storage's error as its cause; later commits go on."""
    async with opening(unsteady) as journal:
        unsteady.down = True
        with pytest.raises(Unavailable) as caught:
            await journal.commit(granted(1))
        assert type(caught.value.__cause__).__module__ == "storage.errors"
        unsteady.down = False
        with pytest.raises(BadRequest):
            await journal.commit(granted(1), announce=[("session", session.key)] * 20_001)
        assert (await journal.commit(granted(1))).first_seq == 1


async def test_oversized_entry_writes_nothing(opening: Any, granted: Granted, clock: Any) -> None:
    """One entry over its bound refuses the whole commit before storage sees it."""
    huge = LeasesRenewed(at=clock.now(), actor="system", session="s", leases=("x" * 26,) * 3000)
    async with opening() as journal:
        with pytest.raises(BadRequest):
            await journal.commit([*granted(1), huge])
        assert (await journal.commit(granted(1))).first_seq == 1


async def test_unsigned_entries_are_bounded(opening: Any, granted: Granted, signed: Any) -> None:
    """At the bound of entries without a checkpoint commits are refused, and accepted again after the next one."""
    settings = AuditSettings(unsigned_entries_max=10, close_deadline_s=1.0)
    async with opening(settings=settings) as journal:
        await journal.commit(granted(8))
        with pytest.raises(Unavailable, match="10 audit entries wait"):
            await journal.commit(granted(3, 8))
        assert journal.counters.refused == 1
        await journal.commit(granted(2, 8))
        await signed(journal)
        await journal.commit(granted(3, 10))


async def test_entries_on_their_way_count_towards_the_bound(
    opening: Any, unsteady: Any, granted: Granted, until: Any
) -> None:
    """A storage that hangs cannot collect unbounded entries: those in flight count too."""
    settings = AuditSettings(unsigned_entries_max=10, close_deadline_s=1.0)
    async with opening(unsteady, settings=settings) as journal:
        unsteady.hold = held_leases
        waiting = asyncio.get_running_loop().create_task(journal.commit(granted(8)))
        await until(lambda: unsteady.held == 1)
        with pytest.raises(Unavailable, match="10 audit entries wait"):
            await journal.commit(granted(3, 8))
        unsteady.gates[0].set()
        await waiting


async def test_a_burst_cannot_pass_the_bound(opening: Any, granted: Granted) -> None:
    """Commits that arrive in one moment are admitted one by one, up to the bound and no further."""
    settings = AuditSettings(unsigned_entries_max=10, close_deadline_s=1.0)
    async with opening(settings=settings) as journal:
        burst = (journal.commit(granted(3, 3 * number)) for number in range(5))
        outcomes = await asyncio.gather(*burst, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Committed"] * 3 + ["Unavailable"] * 2


async def test_entries_removed_beneath_the_broker_stop_it(
    opening: Any, storage: Any, granted: Granted, tamper: Any
) -> None:
    """When storage gives a number twice, that commit and every later one is refused, and readiness turns red."""
    async with opening() as journal:
        await journal.commit(granted(3))
        journal._tail.frontier.extend([bytes(32)])  # as if the entry just stored had been removed
        with pytest.raises(LogBroken, match="a second time"):
            await journal.commit(granted(1, 3))
        assert not journal.healthy()
        with pytest.raises(Unavailable, match="a second time"):
            await journal.commit(granted(1, 4))
    (record,) = (await storage.select(AuditLogRecord)).records
    assert record.closed_at is None


async def test_who_waits_for_a_commit_that_is_cut_off_is_told(
    opening: Any, unsteady: Any, granted: Granted, until: Any
) -> None:
    """A close that cannot wait any longer leaves no caller waiting, and says that it is unknown."""
    async with opening(unsteady, settings=AuditSettings(commit_deadline_s=60.0, close_deadline_s=0.05)) as journal:
        unsteady.hold = held_leases
        caller = asyncio.get_running_loop().create_task(journal.commit(granted(2)))
        await until(lambda: unsteady.held == 1)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="may or may not have been written"):
            await caller


async def test_after_the_close_nothing_is_written(opening: Any, granted: Granted) -> None:
    """A commit after the close is refused and says why."""
    async with opening() as journal:
        pass
    with pytest.raises(Unavailable, match="stopping"):
        await journal.commit(granted(1))
