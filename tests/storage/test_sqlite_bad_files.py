"""What the SQLite adapter says about a file that it must not use; and that it leaves such a file as it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.conformance.samples import lease
from storage.errors import Damaged, NewerSchema, NotOurs, StorageError, Unreachable
from storage.port import Commit
from storage.records import KeyringRecord, LeaseRecord
from storage.sqlite import open_sqlite
from storage.sqlite.connection import APPLICATION_ID
from storage.sqlite.migrations import NEWEST


async def _open(path: Path) -> None:
    async with open_sqlite(f"sqlite:///{path}") as storage:
        await storage.check()


async def _make(path: Path, records: int = 0) -> None:
    async with open_sqlite(f"sqlite:///{path}") as storage:
        await storage.commit(Commit(inserts=[lease(n) for n in range(records)]))


def _sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def _text(path: Path) -> None:
    path.write_bytes(b"[storage]\nurl = 'sqlite:///x'\n" * 50)


def _other_application(path: Path) -> None:
    _sql(path, "CREATE TABLE bookmarks (url TEXT)", "PRAGMA application_id = 252006674")


def _unmarked_database(path: Path) -> None:
    _sql(path, "CREATE TABLE notes (body TEXT)")


@pytest.mark.parametrize("make", [_text, _other_application, _unmarked_database])
async def test_what_is_not_ours_is_left_alone(make: Callable[[Path], None], database: Path) -> None:
    """A text file, another application's database, a database of nobody: NotOurs, named, and not a byte is changed."""
    make(database)
    before = database.read_bytes()
    with pytest.raises(NotOurs, match=r"broker\.db"):
        await _open(database)
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == ["broker.db"]


async def test_a_newer_schema_is_left_alone(database: Path) -> None:
    """A database that a newer release wrote: NewerSchema, with both versions, and it stays as it was."""
    await _make(database)
    _sql(database, f"PRAGMA user_version = {NEWEST + 1}", "CREATE TABLE novelty (x)")
    before = database.read_bytes()
    with pytest.raises(NewerSchema, match=f"schema {NEWEST + 1}.*up to {NEWEST}"):
        await _open(database)
    assert database.read_bytes() == before


async def test_a_missing_table_is_damage(database: Path) -> None:
    """A database of ours without one of its tables: Damaged at opening, not at the first lease."""
    await _make(database)
    _sql(database, "DROP TABLE lease")
    with pytest.raises(Damaged, match="no such table: lease"):
        await _open(database)


async def test_a_missing_version_is_damage(database: Path) -> None:
    """A database of ours that says schema 0: Damaged."""
    _sql(database, f"PRAGMA application_id = {APPLICATION_ID}")
    with pytest.raises(Damaged, match="schema version"):
        await _open(database)


async def test_a_truncated_file_is_damage(database: Path) -> None:
    """A file that ends early: Damaged at opening."""
    await _make(database, records=500)
    os.truncate(database, database.stat().st_size // 2)
    with pytest.raises(Damaged):
        await _open(database)


async def test_an_overwritten_schema_is_damage(database: Path) -> None:
    """A file whose first page was overwritten behind its header: Damaged at opening."""
    await _make(database)
    with database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3996)
    with pytest.raises(Damaged):
        await _open(database)


async def test_an_overwritten_page_is_damage_when_it_is_read(database: Path) -> None:
    """Overwritten rows: opening succeeds, reading them is Damaged, and other tables still serve."""
    await _make(database, records=500)
    with closing(sqlite3.connect(database)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'lease'").fetchone()
    with database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        with pytest.raises(Damaged, match=r"broker\.db is damaged"):
            await storage.select(LeaseRecord)
        assert (await storage.select(KeyringRecord)).records == []


async def test_a_damaged_row_is_named_and_harms_no_other(database: Path) -> None:
    """A row that cannot be read: Damaged with table and key; its neighbours are served."""
    await _make(database, records=3)
    _sql(database, "UPDATE lease SET state = 'undead' WHERE lease = 'lease-000001'")
    async with open_sqlite(f"sqlite:///{database}") as storage:
        with pytest.raises(Damaged, match=r"'lease'.*lease-000001"):
            await storage.get(LeaseRecord, ("lease-000001",))
        assert await storage.get(LeaseRecord, ("lease-000002",)) is not None


async def test_a_missing_folder_is_unreachable(database: Path) -> None:
    """Folders are not made: a typo in a path must not become an empty database somewhere."""
    with pytest.raises(Unreachable, match="No such file"):
        await _open(database.parent / "absent" / "broker.db")
    assert list(database.parent.iterdir()) == []


async def test_a_folder_is_unreachable(database: Path) -> None:
    """A path that is a folder: Unreachable."""
    database.mkdir()
    with pytest.raises(Unreachable, match="directory"):
        await _open(database)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://host/path.db",
        "sqlite:///",
        "sqlite:///a.db?mode=memory",
        "postgres:///a",
        "sqlite:///a%00b",
    ],
)
async def test_another_url_is_unreachable(url: str) -> None:
    """A URL of another form is refused before any file is touched, and the right forms are named."""
    with pytest.raises(Unreachable, match=r"sqlite:////absolute/path\.db"):
        async with open_sqlite(url):
            pass


async def test_a_path_may_hold_any_character(database: Path) -> None:
    """Spaces, question marks, percent signs and letters beyond ASCII in a path name that very file."""
    strange = database.with_name("a b?c=d#é%41.db")
    async with open_sqlite("sqlite:///" + str(strange).replace("%", "%25").replace("?", "%3f").replace("#", "%23")):
        pass
    assert [path.name for path in database.parent.iterdir()] == [strange.name]


async def test_a_relative_url_names_a_relative_file(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///broker.db is in the working directory."""
    monkeypatch.chdir(database.parent)
    await _open(Path("broker.db"))
    assert database.exists()


async def test_the_file_is_its_owners_alone(database: Path) -> None:
    """The database, its log and its shared memory have mode 0600, whatever the umask."""
    umask = os.umask(0)
    try:
        async with open_sqlite(f"sqlite:///{database}") as storage:
            await storage.commit(Commit())
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"broker.db": 0o600, "broker.db-wal": 0o600, "broker.db-shm": 0o600}


@pytest.fixture
def anybodys_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


OPEN_UNPRIVILEGED = """
import asyncio, os, sys
from storage.sqlite import open_sqlite
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
async def main():
    async with open_sqlite("sqlite:///" + sys.argv[1]) as storage:
        await storage.check()
try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o444])
async def test_a_file_that_may_not_be_written_is_unreachable(mode: int, anybodys_folder: Path) -> None:
    """No permission to read or to write: Unreachable, saying so; tried as an unprivileged user."""
    path = anybodys_folder / "broker.db"
    await _make(path)
    path.chmod(mode)
    found = _unprivileged(path)
    assert found.startswith("Unreachable")
    assert str(path) in found


async def test_a_folder_that_may_not_be_written_is_unreachable(anybodys_folder: Path) -> None:
    """No permission to create the file: Unreachable, saying so; tried as an unprivileged user."""
    anybodys_folder.chmod(0o555)
    found = _unprivileged(anybodys_folder / "broker.db")
    assert found.startswith("Unreachable")
    assert "Permission denied" in found


def _unprivileged(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_UNPRIVILEGED, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_every_refusal_says_what_to_do() -> None:
    """The default messages of the tree name a remedy, since an operator may see nothing else."""
    for kind in (NotOurs, NewerSchema, Damaged, Unreachable):
        assert issubclass(kind, StorageError)
        assert any(word in str(kind()) for word in ("name another", "restore", "check"))
