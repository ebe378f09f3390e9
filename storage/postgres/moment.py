"""One moment of a database in use: a transaction that reads, on a connection of its own, and holds nobody up.

What it costs: rows that are deleted or changed meanwhile are not cleared away before it ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from storage.bounds import check_page
from storage.errors import StorageError
from storage.port import PAGE_MAX, Page
from storage.postgres.cells import row_of
from storage.postgres.connecting import Connector
from storage.postgres.failures import from_postgres
from storage.postgres.statements import Catalog
from storage.table import Key, R

PAGE_S: Final = 30.0
"""How long one page may take."""
_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = '300s'"
"""How long the reader may be busy with a page before the server ends it: a copy that hangs must not last for ever."""
_SLOW: Final = "SET LOCAL statement_timeout = '30s'"


class PostgresMoment:
    """`storage.port.Moment` in one transaction. Made by `open_moment`."""

    def __init__(self, *, connection: asyncpg.Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog

    async def select(self, kind: type[R], *, after: Key | None = None, limit: int = PAGE_MAX) -> Page[R]:
        """See the port."""
        check_page(limit)
        table = self._catalog[kind]
        sql, parameters = table.select(index="key", prefix=(), where={}, after=after, descending=False, limit=limit + 1)
        rows = [row_of(row) for row in await self._connection.fetch(sql, *parameters, timeout=PAGE_S)]
        more = len(rows) > limit
        del rows[limit:]
        return Page(
            records=[table.codec.from_row(row) for row in rows],
            next=table.order_of(rows[-1], "key") if more else None,
        )

    async def position(self) -> int:
        """See the port."""
        found: Any = await self._connection.fetchval("SELECT position FROM tokenbroker.feed_head", timeout=PAGE_S)
        return int(found)


@asynccontextmanager
async def open_moment(connector: Connector, catalog: Catalog) -> AsyncIterator[PostgresMoment]:
    """The database as it is now, until the context ends. StorageError: as the server says, at whatever point."""
    try:
        connection = await connector.connect()
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(f"{_IDLE}; {_SLOW}")
                yield PostgresMoment(connection=connection, catalog=catalog)
        finally:
            connection.terminate()
    except StorageError:
        raise
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ) as error:
        raise from_postgres(error) from None
