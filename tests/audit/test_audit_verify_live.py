"""Verification straight on a database: every way of tampering with rows is named, with its log and entry."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.audit.anchors import FileAnchor
from broker.audit.note import Signer
from broker.audit.verify import verify_live
from broker.errors import BadRequest
from storage.records.leases import LeaseRecord
from storage.sqlite import open_sqlite

TEXT = "CAST(entries AS TEXT)"
FORGER = Signer(name="cl-test/audit", seed=bytes([66]) * 32)
SIGNER = Signer(name="cl-test/audit", seed=bytes(range(32)))

# Log 1: 23 entries in blocks 0, 1-7, 8-14, 15-21, 22; checkpoints of 1, 8, 15, 22, 23 entries. Log 2: 9 entries in
# blocks 0, 1-6, 7-8; checkpoints of 1 and 7. Log 3: 7 entries in blocks 0, 1-5, 6; checkpoints of 1, 6, 7.
TAMPERINGS = {
    "a byte in a block": (
        [f"UPDATE audit_block SET entries = CAST(replace({TEXT}, 'lease-9', 'lease-8') AS BLOB) WHERE log = 1"],
        [
            (
                "log 1: entries 8 to 14 are not what was signed (the checkpoint of 15 entries has another root; "
                "the one of 8 still fits)"
            )
        ],
    ),
    "an unknown fact": (
        [
            (
                f"UPDATE audit_block SET entries = CAST(replace({TEXT}, 'lease.granted', 'lease.gronted') AS BLOB) "
                "WHERE log = 2 AND seq = 7"
            )
        ],
        [
            "log 2, entry 7: not an entry of a known event: Invalid value 'lease.gronted' - at `$.event`",
            "log 2, entry 8: not an entry of a known event: Invalid value 'lease.gronted' - at `$.event`",
            "log 2: log 3 recorded another root over its first 9 entries",
        ],
    ),
    "a block": (
        ["DELETE FROM audit_block WHERE log = 1 AND seq = 8"],
        ["log 1: entries 8 to 14 are missing"],
    ),
    "the first block": (
        ["DELETE FROM audit_block WHERE log = 1 AND seq = 0"],
        ["log 1: entry 0 is missing"],
    ),
    "a whole log's blocks": (
        ["DELETE FROM audit_block WHERE log = 3"],
        [
            "log 3: it has no entries, not even the one that opened it",
            "log 3: entries 0 to 6 are missing at its end: a signed checkpoint vouches for 7 entries",
            "log 3: it is marked closed, but log.closed does not end it",
        ],
    ),
    "a log": (
        [
            "DELETE FROM audit_block WHERE log = 2",
            "DELETE FROM checkpoint WHERE log = 2",
            "DELETE FROM audit_log WHERE log = 2",
        ],
        [
            "log 2 is missing",
            "log 3: its row says it continues log 2, not log 1",
            "log 3, entry 0: it continues cl-test/audit/one/2, its row says no log",
        ],
    ),
    "two entries change places": (
        [
            (
                "UPDATE audit_block SET entries = (SELECT b.entries FROM audit_block b WHERE b.log = 1 AND b.seq = "
                "23 - audit_block.seq) WHERE log = 1 AND seq IN (8, 15)"
            )
        ],
        [
            (
                "log 1: entries 8 to 14 are not what was signed (the checkpoint of 15 entries has another root; "
                "the one of 8 still fits)"
            )
        ],
    ),
    "the signed tail": (
        ["DELETE FROM audit_block WHERE log = 1 AND seq >= 15"],
        [
            "log 1: entries 15 to 22 are missing at its end: a signed checkpoint vouches for 23 entries",
            "log 1: it is marked closed, but log.closed does not end it",
        ],
    ),
    "the tail with its checkpoints": (
        ["DELETE FROM audit_block WHERE log = 1 AND seq >= 15", "DELETE FROM checkpoint WHERE log = 1 AND size > 15"],
        [
            "log 1: entries 15 to 22 are missing at its end: the next log's first entry vouches for 23 entries",
            "log 1: it is marked closed, but log.closed does not end it",
        ],
    ),
    "the unsigned tail of the crashed log": (
        ["DELETE FROM audit_block WHERE log = 2 AND seq = 7"],
        ["log 2: entries 7 to 8 are missing at its end: the next log's first entry vouches for 9 entries"],
    ),
    "the newest log's end, with everything that says so": (
        ["DELETE FROM audit_block WHERE log = 3 AND seq = 6", "DELETE FROM checkpoint WHERE log = 3 AND size = 7"],
        ["log 3: it is marked closed, but log.closed does not end it"],
    ),
    "the last checkpoint of a closed log": (
        ["DELETE FROM checkpoint WHERE log = 3 AND size = 7"],
        ["log 3: it is marked closed, but its last checkpoint is gone"],
    ),
    "a block's count": (
        ["UPDATE audit_block SET count = 8 WHERE log = 1 AND seq = 8"],
        [
            "log 1: entry 8 and those stored with it cannot be read: the block says 8 entries and holds 7",
            "log 1: entries 8 to 14 are missing",
        ],
    ),
    "a block's framing": (
        ["UPDATE audit_block SET entries = substr(entries, 1, 40) WHERE log = 1 AND seq = 8"],
        [
            "log 1: entry 8 and those stored with it cannot be read: the block is malformed at its byte 0",
            "log 1: entries 8 to 14 are missing",
        ],
    ),
    "a block that overlaps": (
        ["INSERT INTO audit_block SELECT rev, log, 10, count, entries FROM audit_block WHERE log = 1 AND seq = 8"],
        ["log 1: entry 10 appears twice", "log 1: entry 15 appears twice"],
    ),
    "an older checkpoint in a newer one's place": (
        [
            (
                "UPDATE checkpoint SET note = (SELECT c.note FROM checkpoint c WHERE c.log = 1 AND c.size = 8) "
                "WHERE log = 1 AND size = 15"
            )
        ],
        ["log 1, checkpoint of 15 entries: it was signed for 8 entries; an older one was put in its place"],
    ),
    "another log's checkpoint": (
        [
            (
                "UPDATE checkpoint SET note = (SELECT c.note FROM checkpoint c WHERE c.log = 3 AND c.size = 7) "
                "WHERE log = 2 AND size = 7"
            )
        ],
        ["log 2, checkpoint of 7 entries: it was signed for another log, cl-test/audit/one/3"],
    ),
    "the log's row: another key": (
        ["UPDATE audit_log SET public_key = zeroblob(32) WHERE log = 2"],
        ["log 2: its row names another signing key than cl-test/audit's"],
    ),
    "the log's row: another origin": (
        ["UPDATE audit_log SET origin = 'cl-test/audit/two/2' WHERE log = 2"],
        ["log 2: its origin is cl-test/audit/two/2, but should be cl-test/audit/one/2"],
    ),
    "the log's row: another instance": (
        ["UPDATE audit_log SET instance = 'two', origin = 'cl-test/audit/two/2' WHERE log = 2"],
        ["log 2, entry 0: it is of instance 'one'"],
    ),
    "the log's row: never closed": (
        ["UPDATE audit_log SET closed_at = 1 WHERE log = 2"],
        ["log 2: it is marked closed, but log.closed does not end it"],
    ),
    "entries slipped in behind a finished log": (
        ["INSERT INTO audit_block SELECT rev, log, 9, count, entries FROM audit_block WHERE log = 2 AND seq = 7"],
        ["log 2: 2 entries were added after the next log recorded the end, and no checkpoint covers all of them"],
    ),
}


@pytest.fixture
async def told(history: Any, storage: Any) -> Any:
    """The history, written."""
    await history()
    return storage


async def test_an_honest_history_has_no_problems(told: Any, vkey: str) -> None:
    """What was written verifies; the crash and its unsigned tail are notes."""
    report = await verify_live(told, vkey=vkey)
    assert (report.ok, report.problems, report.logs, report.entries, report.checkpoints) == (True, [], 3, 39, 10)
    assert report.notes == [
        "log 2: entries 7 to 8 are under no checkpoint of this log; the next log's first entry covers them",
        "log 2: it was not closed in order; a crash ended it",
    ]


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_tampering_is_named(told: Any, tamper: Any, vkey: str, what: str) -> None:
    """Each way of changing the rows is reported with the log and the entries concerned."""
    statements, expected = TAMPERINGS[what]
    for sql in statements:
        assert tamper(sql) > 0
    report = await verify_live(told, vkey=vkey)
    assert not report.ok
    for problem in expected:
        assert problem in report.problems


async def test_swapped_entries_in_one_block_are_found(told: Any, database: Path, vkey: str) -> None:
    """Two entries of one block that change places are found, though each is a known fact."""
    with sqlite3.connect(database, timeout=5) as connection:
        (raw,) = connection.execute("SELECT entries FROM audit_block WHERE log = 1 AND seq = 1").fetchone()
        size = 2 + int.from_bytes(raw[:2], "big")
        swapped = raw[size : 2 * size] + raw[:size] + raw[2 * size :]
        assert len(swapped) == len(raw)
        connection.execute("UPDATE audit_block SET entries = ? WHERE log = 1 AND seq = 1", (swapped,))
    connection.close()
    problems = (await verify_live(told, vkey=vkey)).problems
    assert problems[0].startswith("log 1: entries 1 to 7 are not what was signed")


async def test_forged_checkpoint_is_found(told: Any, tamper: Any, vkey: str) -> None:
    """A checkpoint that another key signed is named, however well it fits the entries."""
    with_root = f"cl-test/audit/one/1\n8\n{'A' * 43}=\n"
    tamper("UPDATE checkpoint SET note = ? WHERE log = 1 AND size = 8", (FORGER.sign(with_root),))
    problems = (await verify_live(told, vkey=vkey)).problems
    assert len(problems) == 1
    assert problems[0].startswith(
        "log 1, checkpoint of 8 entries: a checkpoint does not verify: not signed by cl-test/audit with key id"
    )


async def test_edited_opening_is_found(told: Any, database: Path, tamper: Any, vkey: str) -> None:
    """Editing what log 3 says about log 2 is found in log 3's first entry, and contradicts log 3's checkpoints."""
    with sqlite3.connect(database, timeout=5) as connection:
        (raw,) = connection.execute("SELECT entries FROM audit_block WHERE log = 3 AND seq = 0").fetchone()
        entry = raw[2:].replace(b'"previous_size":9', b'"previous_size":7')
        connection.execute(
            "UPDATE audit_block SET entries = ? WHERE log = 3 AND seq = 0", (len(entry).to_bytes(2, "big") + entry,)
        )
    connection.close()
    problems = (await verify_live(told, vkey=vkey)).problems
    assert (
        "log 3: entry 0 is not what was signed (the checkpoint of 1 entries has another root; the one of 0 still fits)"
        in problems
    )
    assert "log 3, checkpoint of 1 entries: it continues another log than entry 0 says" in problems


async def test_swapped_logs_are_found(told: Any, tamper: Any, vkey: str) -> None:
    """Exchanging the entries and checkpoints of two logs is found in both."""
    for table in ("audit_block", "checkpoint"):
        for before, after in ((1, -1), (3, 1), (-1, 3)):
            tamper(f"UPDATE {table} SET log = {after} WHERE log = {before}")
    problems = (await verify_live(told, vkey=vkey)).problems
    assert "log 1, checkpoint of 1 entries: it was signed for another log, cl-test/audit/one/3" in problems
    assert "log 3, checkpoint of 1 entries: it was signed for another log, cl-test/audit/one/1" in problems


async def test_consequences_of_one_change_are_not_repeated(told: Any, tamper: Any, vkey: str) -> None:
    """One changed entry is one problem, not one for every later checkpoint."""
    tamper(
        f"UPDATE audit_block SET entries = CAST(replace({TEXT}, 'lease-1', 'lease-2') AS BLOB) WHERE log=1 AND seq=1"
    )
    assert len((await verify_live(told, vkey=vkey)).problems) == 1


async def test_many_bad_entries_are_counted(told: Any, tamper: Any, vkey: str) -> None:
    """A log full of unknown facts names the first twenty and counts the rest."""
    tamper(f"UPDATE audit_block SET entries = CAST(replace({TEXT}, 'lease.granted', 'x') AS BLOB) WHERE log = 1")
    tamper("UPDATE audit_block SET entries = (SELECT CAST('' AS BLOB)) WHERE log = 1 AND seq = 22")
    raw = b"".join(b"\x00\x01x" for _ in range(22))
    tamper("UPDATE audit_block SET entries = ?, count = 22 WHERE log = 1 AND seq = 1", (raw,))
    tamper("DELETE FROM audit_block WHERE log = 1 AND seq > 1")
    problems = (await verify_live(told, vkey=vkey)).problems
    assert sum(problem.startswith("log 1, entry") for problem in problems) == 20
    assert "log 1: 2 further entries are not known facts" in problems


async def test_a_clock_set_back_is_a_note(opening: Any, granted: Any, clock: Any, storage: Any, vkey: str) -> None:
    """Entries that are older than one before them, by more than the tolerance, are told once per log, with a count."""
    async with opening() as journal:
        early = granted(3)
        await clock.advance(60.0)
        await journal.commit(granted(1))
        await journal.commit(early)
    report = await verify_live(storage, vkey=vkey)
    assert report.ok
    assert report.notes == [
        "log 1, entry 2: the clock stood 60 s further before",
        "log 1: 3 entries in all have an earlier time than one before",
    ]


async def test_an_open_log_verifies_while_it_is_written(
    opening: Any, granted: Any, signed: Any, storage: Any, vkey: str
) -> None:
    """A log in use has no problems, whatever is under a checkpoint so far."""
    async with opening() as journal:
        await journal.commit(granted(3))
        await signed(journal)
        await journal.commit(granted(2, 3))
        report = await verify_live(storage, vkey=vkey)
    assert report.ok
    assert report.notes == [
        "log 1: entries 4 to 5 are under no checkpoint of this log; nothing vouches for them",
        "log 1: it was not closed in order; it is open, or a crash ended it",
    ]


async def test_two_processes_with_one_instance_name_are_a_note(
    opening: Any, granted: Any, storage: Any, vkey: str
) -> None:
    """When a log goes on after its successor opened, signed to its end, nothing is wrong but the configuration."""
    async with opening() as first:
        await first.commit(granted(2))
        async with opening() as second:
            await second.commit(granted(2, 2))
            # As if nobody had moved the log's row when the second one was opened.
            first.record = msgspec.structs.replace(first.record, rev=first.record.rev + 1)
            await first.commit(granted(2, 4))
    report = await verify_live(storage, vkey=vkey)
    assert report.problems == []
    assert (
        "log 1: 3 entries were added after the next log recorded the end: two processes used this instance name at once"
        in report.notes
    )


def lease_row(clock: Any, number: int, **over: Any) -> LeaseRecord:
    """A live lease as the broker keeps it."""
    row = LeaseRecord(
        lease=f"lease-{number}",
        token="github/ci",
        version=1,
        worker="w",
        session="s",
        instance="one",
        grant="g",
        state="live",
        ttl_s=300.0,
        granted_at=clock.now(),
        expires_at=clock.now() + timedelta(seconds=300),
        max_expires_at=clock.now() + timedelta(seconds=3600),
        due_at=clock.now() + timedelta(seconds=300),
    )
    return msgspec.structs.replace(row, **over)


async def test_every_lease_has_its_grant_entry(told: Any, clock: Any, vkey: str) -> None:
    """Lease rows with their entries are fine; one slipped in, or given to another worker or token, is named."""
    honest = [lease_row(clock, number) for number in range(34)]
    assert (await verify_live(told, vkey=vkey, leases=honest)).ok
    wrong = [lease_row(clock, 99), lease_row(clock, 3, worker="eve"), lease_row(clock, 4, token="prod/root")]
    report = await verify_live(told, vkey=vkey, leases=[*honest[5:], *wrong])
    assert report.problems == [
        "lease lease-99: no lease.granted entry gives github/ci to worker:w",
        "lease lease-3: no lease.granted entry gives github/ci to worker:eve",
        "lease lease-4: no lease.granted entry gives prod/root to worker:w",
    ]


async def test_a_database_put_back_is_found_through_the_anchors(
    *, opening: Any, granted: Any, tmp_path: Path, vkey: str, clock: Any
) -> None:
    """A whole database replaced by an older copy verifies by itself, and contradicts the anchors, log by log."""
    anchors, path, copy = tmp_path / "anchors", tmp_path / "live.db", tmp_path / "old.db"
    anchor = [FileAnchor(path=anchors)]
    async with open_sqlite(f"sqlite:///{path}") as storage:
        async with opening(storage, anchors=anchor) as journal:
            await journal.commit(granted(3))
        await storage.backup(copy)
        async with opening(storage, anchors=anchor) as journal:
            await journal.commit(granted(5, 3))
        assert (await verify_live(storage, vkey=vkey, anchors=anchors)).ok
    async with open_sqlite(f"sqlite:///{copy}") as storage:
        assert (await verify_live(storage, vkey=vkey)).ok
        report = await verify_live(storage, vkey=vkey, anchors=anchors)
        assert report.problems == ["log 2: an anchored checkpoint vouches for it, but it is not here"]
        await clock.advance(60.0)
        async with opening(storage) as journal:
            await journal.commit(granted(1, 8))
        report = await verify_live(storage, vkey=vkey, anchors=anchors)
    assert report.problems == [
        (
            "log 2: the first 1 entries are not those of the anchored checkpoint: history was rewritten, or the "
            "database was put back to an older state"
        ),
        "log 2: entries 3 to 6 are missing at its end: an anchored checkpoint vouches for 7 entries",
    ]


async def test_an_empty_database_is_no_log(storage: Any, vkey: str) -> None:
    """A database without any audit log is a problem, not a success."""
    assert (await verify_live(storage, vkey=vkey)).problems == ["there is no audit log at all"]


async def test_an_unfit_key_is_refused(storage: Any) -> None:
    """What is no verifier key is a bad request, not a finding."""
    with pytest.raises(BadRequest, match="verifier key"):
        await verify_live(storage, vkey="cl-test/audit+00000000+AAAA")
