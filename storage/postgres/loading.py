"""Fill a PostgreSQL database with the records of another one.

The mark of a fill that has not ended is the table `tokenbroker.loading`; `migrations.version_of` refuses a database
that has it. Only the role that owns the schema can make that table, so only that role fills.
"""
# ruff: noqa: S608 - identifiers come from record types and are quoted

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import asyncpg

from storage import records
from storage.bounds import check_page
from storage.errors import Refused, Unavailable
from storage.port import Commit
from storage.postgres.address import parse_address
from storage.postgres.cells import escaped
from storage.postgres.connecting import Connector
from storage.postgres.failures import from_postgres
from storage.postgres.migrations import LOCK, migrate
from storage.postgres.opening import opened
from storage.postgres.schema import qualified
from storage.postgres.storage import PostgresStorage
from storage.table import Record
from storage.work import prepare

ANSWER_S: Final = 60.0
"""How long one page may take to be written, and each step of the end."""
ALONE_MS: Final = 10_000
"""How long to wait for one who fills already: the server may not have noticed yet that it is dead."""

_TABLES: Final = tuple(qualified(kind.table.name) for kind in records.ALL)

_HEADS: Final = """
WITH RECURSIVE logs(log) AS (
  (SELECT log FROM tokenbroker.audit_block ORDER BY log LIMIT 1)
  UNION ALL
  SELECT (SELECT b.log FROM tokenbroker.audit_block AS b WHERE b.log > logs.log ORDER BY b.log LIMIT 1)
  FROM logs WHERE logs.log IS NOT NULL
)
INSERT INTO tokenbroker.audit_head (log, next)
SELECT logs.log, last.next FROM logs CROSS JOIN LATERAL (
  SELECT b.seq + b.count AS next FROM tokenbroker.audit_block AS b WHERE b.log = logs.log ORDER BY b.seq DESC LIMIT 1
) AS last
"""
"""The next number of each log, found by jumping from log to log, whatever the number of blocks."""


class PostgresLoading(PostgresStorage):
    """`storage.port.Loading` on one PostgreSQL database. Made by `load_postgres`. source: what the mark must say."""

    source = ""

    async def load(self, records: Sequence[Record]) -> None:
        """See the port."""
        check_page(len(records))
        await self._committer.commit(prepare(Commit(inserts=records), self._codecs))

    async def finish(self, position: int) -> None:
        """See the port."""
        for table in _TABLES:  # or the first queries would be planned for empty tables
            await self._connections.run(partial(_analyze, table))
        await self._connections.run(partial(_finish, position, escaped(self.source)), unknown="; run it again")


@asynccontextmanager
async def load_postgres(url: str, source: str) -> AsyncIterator[PostgresLoading]:
    """Open the database that `url` names to be filled; see `storage.port.Loading` and `open_postgres`.

    Refused: also if PgBouncer is between. Unavailable: also if somebody else is filling it.
    """
    address = parse_address(url, statement_s=ANSWER_S)
    if address.pooled:
        raise Refused(f"{address.shown}: fill it past PgBouncer, at the server itself and without pgbouncer=1")
    async with (
        _alone(Connector(address), address.shown),
        opened(PostgresLoading, url, prepare=partial(_begin, source=source), answer_s=ANSWER_S) as loading,
    ):
        loading.source = source
        yield loading


@asynccontextmanager
async def _alone(connector: Connector, shown: str) -> AsyncIterator[None]:
    """Hold a lock that ends with this process, or with its connection. Unavailable: somebody else has it."""
    try:
        connection = await connector.connect()
        try:
            await connection.execute(f"SET lock_timeout = {ALONE_MS}")
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK + 1)
        except BaseException:
            connection.terminate()
            raise
    except (asyncpg.LockNotAvailableError, TimeoutError):
        raise Unavailable(f"{shown}: somebody else is filling it, or it does not answer") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        said = from_postgres(error)
        raise type(said)(f"{shown}: {said}") from None
    try:
        yield
    finally:
        connection.terminate()


async def _begin(connection: asyncpg.Connection, shown: str, *, source: str) -> None:
    """Make the schema and the mark. Refused: the database holds what was not loaded, or the role may not."""
    await migrate(connection, shown, filling=True)
    source = escaped(source)
    try:
        if await connection.fetchval("SELECT to_regclass('tokenbroker.loading')") is None:
            for table in _TABLES:
                if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):
                    raise Refused(f"{shown} holds records already; name a database that is empty")
            if await connection.fetchval("SELECT position FROM tokenbroker.feed_head"):
                raise Refused(f"{shown} was used already; name a database that is empty")
            await connection.execute("CREATE TABLE tokenbroker.loading (source text NOT NULL)")
            await connection.execute("INSERT INTO tokenbroker.loading VALUES ($1)", source)
        elif await connection.fetchval("SELECT source FROM tokenbroker.loading") != source:
            await connection.execute(f"TRUNCATE {', '.join(_TABLES)}")
            await connection.execute("UPDATE tokenbroker.loading SET source = $1", source)
    except asyncpg.InsufficientPrivilegeError:
        raise Refused(f"{shown}: only the role that owns the schema tokenbroker may fill it") from None


async def _analyze(table: str, connection: Any) -> None:
    await connection.execute(f"ANALYZE {table}")


async def _finish(position: int, source: str, connection: Any) -> None:
    async with connection.transaction():
        # The lock on filling ends with its connection, which a network may cut unseen; then somebody else has begun.
        await connection.execute("LOCK TABLE tokenbroker.loading")
        if await connection.fetchval("SELECT source FROM tokenbroker.loading") != source:
            raise Refused("somebody else has begun to fill this database meanwhile; it stays closed")
        await connection.execute("DELETE FROM tokenbroker.audit_head")
        await connection.execute(_HEADS)
        await connection.execute("UPDATE tokenbroker.feed_head SET position = $1", position)
        await connection.execute("DROP TABLE tokenbroker.loading")
