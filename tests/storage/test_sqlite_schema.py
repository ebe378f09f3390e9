"""The SQLite schema: what the migrations make is what the records imply, and applying them is safe."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage import records
from storage.codec import Codec
from storage.errors import Unavailable
from storage.port import Commit
from storage.sqlite import migrations, open_sqlite
from storage.sqlite.migrations import migrate
from storage.sqlite.schema import schema_sql
from storage.sqlite.statements import Statements


def _objects(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """Tables, columns and indexes as SQLite understood them, in an order that does not tell how they were made."""
    found: list[tuple[str, ...]] = []
    tables = connection.execute("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    for name, *kind in tables:
        found.append((name, *map(str, kind)))
        found += [(name, *map(str, row)) for row in connection.execute(f'PRAGMA table_xinfo("{name}")')]
    found += connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql NOTNULL").fetchall()
    return sorted(found)


def test_the_migrations_make_what_the_records_imply(database: Path) -> None:
    """A record type that changed without a migration fails here; see storage/sqlite/schema.py."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as migrated:
        migrate(migrated, database)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as derived:
            derived.executescript(schema_sql())
            assert _objects(migrated) == _objects(derived)


def test_migrating_twice_changes_nothing(database: Path) -> None:
    """A database of the newest schema is left alone."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        assert migrate(connection, database) == 0
        assert migrate(connection, database) == migrations.NEWEST
        assert connection.total_changes == 1  # the one row of table health


def test_a_migration_that_fails_leaves_nothing(database: Path) -> None:
    """All statements happen or none: one that fails undoes those before it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.set_authorizer(
            lambda action, name, *_: (
                sqlite3.SQLITE_DENY if (action, name) == (sqlite3.SQLITE_CREATE_TABLE, "worker") else sqlite3.SQLITE_OK
            )
        )
        with pytest.raises(sqlite3.DatabaseError):
            migrate(connection, database)
        connection.set_authorizer(None)
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        assert migrate(connection, database) == 0


async def test_many_may_open_a_fresh_file_at_once(database: Path) -> None:
    """Handles that race to create the schema all open; it is created once."""

    async def use() -> None:
        async with open_sqlite(f"sqlite:///{database}", busy_timeout_s=20) as storage:
            await storage.commit(Commit())

    await asyncio.gather(*(use() for _ in range(8)))
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM health").fetchone() == (1,)


async def test_a_migration_waits_for_nobody_longer_than_the_timeout(database: Path) -> None:
    """A fresh file that somebody else holds locked is Unavailable."""
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            async with open_sqlite(f"sqlite:///{database}", busy_timeout_s=0.1):
                pass


@pytest.mark.parametrize("kind", records.ALL)
def test_every_question_uses_an_index(kind: type[records.LeaseRecord], database: Path) -> None:
    """No get, page, due or prune scans a table or sorts: its cost follows what it answers."""
    table = Statements(Codec(kind))
    cells = len(kind.table.key)
    asked: list[tuple[str, list[object]]] = [(table.get(1), [0] * cells), (table.get(8), [0] * cells * 8)]
    for column in kind.table.due:
        asked += [(table.due(column), [0, 1]), (table.prune(column), [0, 1])]
    for index in ("key", *kind.table.indexes):
        order = kind.table.order(index)
        for descending in (False, True):
            for fixed in range(len(order)):
                sql, parameters = table.select(
                    index=index, prefix=("x",) * fixed, where={}, after=("x",) * len(order), descending=descending
                )
                asked.append((sql, [*parameters, 1]))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, database)
        for sql, parameters in asked:
            plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, parameters)]
            steps = [step for step in plan if "CONSTANT ROW" not in step and step not in {"SCAN v", "CO-ROUTINE v"}]
            assert steps
            assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], sql


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux, to ask which locks are held")
def test_opening_again_keeps_the_locks_of_the_first(database: Path) -> None:
    """A second handle of this process drops no file lock of the first, or other processes could take its log away."""

    async def locks_before_and_after() -> tuple[int, int]:
        async with open_sqlite(f"sqlite:///{database}") as storage:
            await storage.commit(Commit())
            before = _locks(database)
            async with open_sqlite(f"sqlite:///{database}"):
                pass
            return before, _locks(database)

    before, after = asyncio.run(locks_before_and_after())
    assert before == after > 0


def _locks(path: Path) -> int:
    """How many POSIX locks this system knows on the file."""
    inode = f":{path.stat().st_ino} "
    return sum(inode in line for line in Path("/proc/locks").read_text().splitlines())
