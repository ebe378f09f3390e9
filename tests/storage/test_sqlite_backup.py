"""Backup of a database in use, and restore: whole or not at all, verified, never over something else."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from storage.bounds import unframe
from storage.conformance.samples import lease
from storage.errors import Damaged, NewerSchema, NotOurs, Refused, Unavailable, Unreachable
from storage.port import AuditAppend, Backup, Commit
from storage.records import AuditBlockRecord, LeaseRecord
from storage.sqlite import open_sqlite, restore_sqlite


async def _make(path: Path, records: int = 20) -> None:
    async with open_sqlite(f"sqlite:///{path}") as storage:
        await storage.commit(
            Commit(
                inserts=[lease(n) for n in range(records)],
                audit=AuditAppend(1, (b"e",) * 5),
                announce=[("lease", ("x",))],
            )
        )


async def test_a_backup_taken_while_writing_is_one_moment(tmp_path: Path, database: Path) -> None:
    """Commits go on during the backup; what was committed before it is in it, and every commit in it is whole."""
    copy, restored = tmp_path / "copy.db", tmp_path / "restored.db"
    async with open_sqlite(f"sqlite:///{database}") as storage:
        power: Backup = storage
        started, stop = asyncio.Event(), asyncio.Event()
        written = 0

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                pair = [lease(2 * written), lease(2 * written + 1)]
                entry = AuditAppend(1, (str(written).encode(),))
                await storage.commit(Commit(inserts=pair, audit=entry))
                written += 1
                if written == 50:
                    started.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            async with asyncio.timeout(20):
                await started.wait()
            before = written
            await power.backup(copy)
            during = written
            stop.set()
    restore_sqlite(copy, restored)
    async with open_sqlite(f"sqlite:///{restored}") as storage:
        leases = (await storage.select(LeaseRecord)).records
        blocks = (await storage.select(AuditBlockRecord)).records
    assert before <= len(blocks) <= during + 1
    assert len(leases) == 2 * len(blocks)
    assert [int(entry) for block in blocks for entry in unframe(block.entries)] == list(range(len(blocks)))


async def test_a_restored_database_goes_on(tmp_path: Path, database: Path) -> None:
    """Records, audit numbers and feed positions of the restored database continue those of the backup."""
    copy, restored = tmp_path / "copy.db", tmp_path / "restored.db"
    await _make(database)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        await storage.backup(copy)
    restore_sqlite(copy, restored)
    async with open_sqlite(f"sqlite:///{restored}") as storage:
        assert (await storage.select(LeaseRecord)).records == [lease(n) for n in range(20)]
        done = await storage.commit(Commit(audit=AuditAppend(1, (b"e",)), announce=[("lease", ("y",))]))
        assert (done.first_seq, done.position) == (5, 2)


async def test_copies_are_their_owners_alone(tmp_path: Path, database: Path) -> None:
    """Backup and restored database have mode 0600, and nothing else is left beside them."""
    folder = tmp_path / "copies"
    folder.mkdir()
    await _make(database)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        await storage.backup(folder / "copy.db")
    restore_sqlite(folder / "copy.db", folder / "restored.db")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"copy.db": 0o600, "restored.db": 0o600}


async def test_a_backup_overwrites_nothing(tmp_path: Path, database: Path) -> None:
    """A file of that name: Refused, and it stays as it was."""
    copy = tmp_path / "copy.db"
    copy.write_text("precious")
    await _make(database)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        with pytest.raises(Refused, match="exists"):
            await storage.backup(copy)
    assert copy.read_text() == "precious"


async def test_a_backup_needs_its_folder(tmp_path: Path, database: Path) -> None:
    """A folder that is not there: Unreachable, and the storage serves on."""
    await _make(database)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        with pytest.raises(Unreachable, match="No such file"):
            await storage.backup(tmp_path / "absent" / "copy.db")
        await storage.check()


async def test_a_cancelled_backup_leaves_all_or_nothing(tmp_path: Path, database: Path) -> None:
    """Cancelled at any moment: the whole copy under the name or nothing, no part beside it; the storage serves on."""
    folder = tmp_path / "copies"
    folder.mkdir()
    await _make(database, records=2_000)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        for moment in range(5):
            async with asyncio.TaskGroup() as tasks:
                backup = tasks.create_task(storage.backup(folder / "copy.db"))
                await asyncio.sleep(0.002 * moment)
                backup.cancel()
            left = list(folder.iterdir())
            assert left in ([], [folder / "copy.db"])
            assert left or backup.cancelled()
            for copy in left:
                restore_sqlite(copy, tmp_path / f"restored-{moment}.db")
                copy.unlink()
        await storage.check()


async def test_a_closed_storage_makes_no_backup(tmp_path: Path, database: Path) -> None:
    """Unavailable, as for every other call."""
    async with open_sqlite(f"sqlite:///{database}") as storage:
        pass
    with pytest.raises(Unavailable):
        await storage.backup(tmp_path / "copy.db")


async def test_deleted_records_are_not_in_a_backup(tmp_path: Path, database: Path) -> None:
    """Free pages are left out: what was deleted does not travel."""
    marker = b"deleted-but-not-forgotten"
    async with open_sqlite(f"sqlite:///{database}") as storage:
        await storage.commit(
            Commit(inserts=[lease(n, reason=marker.decode(), prune_at=lease(n).due_at) for n in range(50)])
        )
        await storage.prune(LeaseRecord, "prune_at", lease(10**6).granted_at)
        await storage.backup(tmp_path / "copy.db")
    assert marker not in (tmp_path / "copy.db").read_bytes()


async def test_restore_leaves_the_backup_as_it_was(tmp_path: Path, database: Path) -> None:
    """A backup is only read: no byte of it changes and no file appears beside it, so it may lie on read-only media."""
    folder = tmp_path / "backups"
    folder.mkdir()
    await _make(tmp_path / "source.db")
    async with open_sqlite(f"sqlite:///{tmp_path}/source.db") as storage:
        await storage.backup(folder / "copy.db")
    before = (folder / "copy.db").read_bytes()
    restore_sqlite(folder / "copy.db", database)
    assert (folder / "copy.db").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["copy.db"]


async def test_a_database_in_use_restores_with_its_log(tmp_path: Path, database: Path) -> None:
    """Naming a live database instead of a backup copies what it holds, what only its log holds too."""
    async with open_sqlite(f"sqlite:///{tmp_path}/live.db") as storage:
        await storage.commit(Commit(inserts=[lease(1)]))
        restore_sqlite(tmp_path / "live.db", database)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        assert await storage.get(LeaseRecord, lease(1).key) == lease(1)


@pytest.mark.parametrize("beside", ["broker.db", "broker.db-wal", "broker.db-shm", "broker.db-journal"])
async def test_restore_overwrites_nothing(beside: str, tmp_path: Path, database: Path) -> None:
    """A database at the target, or the log of one, which would be replayed into it: Refused, and nothing is touched."""
    source = tmp_path / "backup.db"
    await _make(source)
    database.with_name(beside).write_text("precious")
    with pytest.raises(Refused, match="exists; move it away"):
        restore_sqlite(source, database)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["backup.db", beside])
    assert database.with_name(beside).read_text() == "precious"


async def test_restore_refuses_what_is_no_backup_of_ours(tmp_path: Path, database: Path) -> None:
    """Text, another application's database, an empty file: NotOurs, and nothing appears at the target."""
    text, other, empty = (tmp_path / name for name in ("text", "other", "empty"))
    text.write_text("no database, however one looks at it")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    empty.touch()
    for source in (text, other, empty):
        with pytest.raises(NotOurs, match=source.name):
            restore_sqlite(source, database)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "other", "text"]


async def test_restore_refuses_a_newer_schema(tmp_path: Path, database: Path) -> None:
    """A backup of a newer release: NewerSchema, and nothing appears at the target."""
    source = tmp_path / "backup.db"
    await _make(source)
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerSchema):
        restore_sqlite(source, database)
    assert not database.exists()


async def test_restore_refuses_a_damaged_backup(tmp_path: Path, database: Path) -> None:
    """A backup with overwritten pages: Damaged, and nothing appears at the target."""
    source = tmp_path / "backup.db"
    await _make(source, records=500)
    with source.open("r+b") as file:
        file.seek(-9 * 4096, 2)
        file.write(b"\xa5" * 8 * 4096)
    with pytest.raises(Damaged, match=r"backup\.db"):
        restore_sqlite(source, database)
    assert [path.name for path in tmp_path.iterdir()] == ["backup.db"]


def test_restore_of_a_missing_backup_is_unreachable(tmp_path: Path, database: Path) -> None:
    """No such file: Unreachable, and none is made."""
    with pytest.raises(Unreachable, match="No such file"):
        restore_sqlite(tmp_path / "absent.db", database)
    assert list(tmp_path.iterdir()) == []
