"""Fill an SQLite file with the records of another database, and write one moment of any database as an SQLite file.

The mark of a fill that has not ended is the table `loading`; `connection.schema_version` refuses a file that has it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from storage import records
from storage.bounds import check_page
from storage.copying import copy_records
from storage.errors import Refused, Unavailable
from storage.port import Commit, Moment
from storage.sqlite.backup import placed
from storage.sqlite.failures import from_sqlite
from storage.sqlite.migrations import migrate
from storage.sqlite.opening import opened, path_of
from storage.sqlite.schema import quote
from storage.sqlite.storage import SqliteStorage
from storage.table import Record
from storage.work import prepare

PORTABLE_PAGE_MAX = 200
"""Most records of a page of a portable copy: made beside a broker that serves, each costs it few milliseconds."""
FINISH_S = 600.0
"""How long the last step may take."""


class SqliteLoading(SqliteStorage):
    """`storage.port.Loading` on one SQLite file. Made by `load_sqlite`."""

    async def load(self, records: Sequence[Record]) -> None:
        """See the port."""
        check_page(len(records))
        await self._committer.commit(prepare(Commit(inserts=records), self._codecs))

    async def finish(self, position: int) -> None:
        """See the port."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self._thread.submit(_finish, self._path, position)
        except TimeoutError:
            raise Unavailable(f"the disk has not answered for {FINISH_S:g} s; run it again") from None


@asynccontextmanager
async def load_sqlite(url: str, source: str) -> AsyncIterator[SqliteLoading]:
    """Open the file that `url` names to be filled, creating it; see `storage.port.Loading` and `open_sqlite`."""
    async with opened(SqliteLoading, path_of(url), prepare=partial(_begin, source=source)) as loading:
        yield loading


async def write_portable(moment: Moment, target: Path) -> None:
    """Write the moment as an SQLite file (mode 0600), which must not exist, durable on return; all of it or nothing.

    Refused: `target` exists. Unreachable, StorageFull: it cannot be written. Besides, what reading the moment raises.
    """
    if await asyncio.to_thread(target.exists):
        raise Refused(f"{target} exists; name another file for the backup")
    with placed(target) as part:
        async with opened(SqliteLoading, part, prepare=partial(_begin, source="")) as loading:
            await copy_records(moment, loading, lambda _kind, _count: None, page_max=PORTABLE_PAGE_MAX)
            await loading.finish(await moment.position())


def _begin(connection: sqlite3.Connection, path: Path, *, source: str) -> None:
    """Make the schema and the mark. Refused: the file holds what was not loaded. sqlite3.Error: as SQLite says."""
    migrate(connection, path, filling=True)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'loading'").fetchone() is None:
            _refuse_if_used(connection, path)
            connection.execute('CREATE TABLE "loading" ("source" TEXT NOT NULL) STRICT')
            connection.execute('INSERT INTO "loading" VALUES (?)', (source,))
        elif connection.execute('SELECT "source" FROM "loading"').fetchone() != (source,):
            for kind in records.ALL:
                connection.execute(f"DELETE FROM {quote(kind.table.name)}")  # noqa: S608 - a record type's own name
            connection.execute('UPDATE "loading" SET "source" = ?', (source,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_if_used(connection: sqlite3.Connection, path: Path) -> None:
    for kind in records.ALL:
        name = quote(kind.table.name)
        if connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is not None:  # noqa: S608 - likewise
            raise Refused(f"{path} holds records already; name a database that is empty")
    if connection.execute("SELECT 1 FROM sqlite_sequence WHERE name = 'feed'").fetchone() is not None:
        raise Refused(f"{path} was used already; name a database that is empty")


def _finish(connection: sqlite3.Connection, path: Path, position: int) -> None:
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'feed'")
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('feed', ?)", (position,))
        connection.execute('DROP TABLE "loading"')
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise from_sqlite(error, path) from None
