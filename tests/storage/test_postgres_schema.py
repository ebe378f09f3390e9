"""The PostgreSQL schema: what the migrations make is what the records imply, and every question has its index."""

from __future__ import annotations

import asyncio
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from storage import records
from storage.codec import Codec
from storage.conformance.samples import following, lease
from storage.errors import Unavailable
from storage.port import Commit
from storage.postgres import open_postgres
from storage.postgres.migrations import MIGRATIONS, NEWEST, migrate
from storage.postgres.opening import migrate_postgres
from storage.postgres.schema import schema_sql
from storage.postgres.statements import Statements
from storage.records import LeaseRecord


def _dump(postgres: Any, database: str) -> list[str]:
    """The schema as pg_dump tells it, without what differs from one dump to the next."""
    options = ("--schema-only", "--no-privileges", "--schema=tokenbroker")
    command = [str(postgres.programs / "pg_dump"), *options, postgres.url(database)]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [line for line in dumped.splitlines() if line and not line.startswith(("--", "\\"))]


async def test_the_migrations_make_what_the_records_imply(postgres: Any) -> None:
    """A record type that changed without a migration fails here; see storage/postgres/schema.py."""
    migrated, derived = postgres.create(), postgres.create()
    async with open_postgres(postgres.url(migrated)):
        pass
    postgres.sql(derived, "CREATE SCHEMA tokenbroker; " + schema_sql())
    assert _dump(postgres, migrated) == _dump(postgres, derived)


async def test_many_may_open_a_fresh_database_at_once(postgres: Any) -> None:
    """Replicas that race to make the schema all open; it is made once."""
    name = postgres.create()

    async def use() -> None:
        async with open_postgres(postgres.url(name)) as storage:
            await storage.commit(Commit())

    await asyncio.gather(*(use() for _ in range(6)))
    assert postgres.sql(name, "SELECT count(*), max(version) FROM tokenbroker.schema_version") == f"1|{NEWEST}"


async def test_a_migration_that_fails_leaves_nothing(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All statements happen or none."""
    name = postgres.create()
    monkeypatch.setattr("storage.postgres.migrations.NEWEST", NEWEST + 1)
    monkeypatch.setattr("storage.postgres.migrations.MIGRATIONS", (*MIGRATIONS, ("no_such_file.sql", 1)))
    connection = await asyncpg.connect(postgres.url(name))
    try:
        with pytest.raises(FileNotFoundError):
            await migrate(connection, "here")
    finally:
        await connection.close()
    assert postgres.sql(name, "SELECT count(*) FROM pg_namespace WHERE nspname = 'tokenbroker'") == "0"


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A release that adds a column to the leases, until it is undone."""
    expanding = tmp_path / "expanding.sql"
    expanding.write_text("ALTER TABLE tokenbroker.lease ADD COLUMN added bigint")
    monkeypatch.setattr("storage.postgres.migrations.NEWEST", NEWEST + 1)
    monkeypatch.setattr("storage.postgres.migrations.MIGRATIONS", (*MIGRATIONS, (str(expanding), NEWEST)))
    return monkeypatch


async def test_a_release_serves_on_while_the_next_one_expands(postgres: Any, next_release: pytest.MonkeyPatch) -> None:
    """Before, during and after the next release's migration this one reads and writes, and may be started anew."""
    url = postgres.url(postgres.create())
    with next_release.context() as now:
        now.setattr("storage.postgres.migrations.NEWEST", NEWEST)
        async with open_postgres(url) as running:
            await running.commit(Commit(inserts=[lease(1)]))
            now.undo()
            assert await migrate_postgres(url) == (NEWEST, NEWEST + 1)
            await running.commit(Commit(updates=[following(lease(1))], inserts=[lease(2)]))
            assert await running.get(LeaseRecord, lease(1).key) == following(lease(1))
    next_release.undo()
    async with open_postgres(url) as started:
        await started.commit(Commit(inserts=[lease(3)]))
        assert (await started.check()).schema == NEWEST + 1


async def test_a_migration_waits_for_no_table_in_use(postgres: Any, next_release: pytest.MonkeyPatch) -> None:
    """While somebody reads the table in a long transaction, the migration gives up, undone, and brokers go on."""
    url = postgres.url(postgres.create())
    with next_release.context() as now:
        now.setattr("storage.postgres.migrations.NEWEST", NEWEST)
        async with open_postgres(url) as running:
            reader = await asyncpg.connect(url)
            try:
                async with reader.transaction():
                    await reader.fetch("SELECT count(*) FROM tokenbroker.lease")
                    now.undo()
                    with pytest.raises(Unavailable):
                        await migrate_postgres(url)
                    await running.commit(Commit(inserts=[lease(1)]))
            finally:
                await reader.close()
            assert await migrate_postgres(url) == (NEWEST, NEWEST + 1)


@pytest.mark.parametrize("kind", records.ALL)
async def test_every_question_uses_an_index(kind: type[records.LeaseRecord], postgres: Any) -> None:
    """No get, page, due, prune or update needs to scan a table or sort: its cost follows what it answers."""
    table = Statements(Codec(kind))
    key = kind.table.key
    cells = {name: "x" if table.codec.column(name).affinity.value == "TEXT" else 1 for name in table.codec.names}
    asked: list[tuple[str, list[object]]] = [(table.get, [cells[name] for name in key])]
    for column in kind.table.due:
        asked += [(table.due(column), [0, 1]), (table.prune(column), [0, 1])]
    for index in ("key", *kind.table.indexes):
        order = kind.table.order(index)
        behind = tuple(cells[name] for name in order)
        for descending in (False, True):
            for fixed in range(len(order)):
                asked.append(
                    table.select(
                        index=index, prefix=behind[:fixed], where={}, after=behind, descending=descending, limit=1
                    )
                )
    database = postgres.create()
    async with open_postgres(postgres.url(database)):
        pass
    connection = await asyncpg.connect(postgres.url(database))
    try:
        # What the planner would take with many rows: whatever needs no scan and no sort, if there is such a way.
        await connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        for sql, parameters in asked:
            plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN (COSTS ON) " + sql, *parameters))
            assert "Seq Scan" not in plan, plan
            assert "Sort" not in plan, plan
    finally:
        await connection.close()


def test_parameters_number_on() -> None:
    """Several statements in one take their parameters one after another."""
    numbers = count(1)
    table = Statements(Codec(records.RootRecord))
    assert "$1::bigint[]" in table.insert(numbers)
    assert "$5::bigint[]" in table.update(table.codec, numbers)
    assert "$9::text[], $10::bigint[]" in table.delete(numbers)
