"""From a URL to an open storage, and back to closed: pool, checks, migration, the listening connection.

What the URL says is `address`' business, the schema `migrations`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from storage import records
from storage.codec import Codec
from storage.errors import Refused, Unavailable
from storage.news import News
from storage.postgres.address import Address, parse_address
from storage.postgres.connections import Connections
from storage.postgres.failures import from_postgres
from storage.postgres.listening import listen
from storage.postgres.migrations import migrate, version_of
from storage.postgres.statements import Catalog, Statements
from storage.postgres.storage import PostgresStorage

ANSWER_S = 30.0
"""How long a caller waits for the database."""
OPEN_S = 120.0
"""How long opening may take: migrations, and another replica's."""
SERVER_MIN = 140_000
"""The oldest server: PostgreSQL 14."""

_DURABLE = {"synchronous_commit": ("on", "remote_apply"), "fsync": ("on",), "full_page_writes": ("on",)}
"""Settings under which what was acknowledged survives, each with the values that do."""


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg carries no types
    """A connection that goes back to the pool as it is: nothing is left behind, so a reset would be a wasted trip."""

    def get_reset_query(self) -> str:
        """Nothing."""
        return ""


@asynccontextmanager
async def open_postgres(url: str, *, answer_s: float = ANSWER_S) -> AsyncIterator[PostgresStorage]:
    """Open the database that `url` names, and migrate it if that is needed and the role may.

    url: `postgresql://user@host1,host2/database?target_session_attrs=read-write`; the options are in
    docs/howto/postgresql.md. A password comes from a passfile or PGPASSWORD better than from the URL.
    NotOurs: its schema `tokenbroker` is another application's. NewerSchema: a newer release migrated it. Damaged: a
    table is missing. Refused: settings that could lose acknowledged commits, a missing privilege, another encoding.
    Unreachable: a bad URL, user, database or certificate. Unavailable: no host answers.
    On leaving, accepted commits are answered first; calls that come later get Unavailable.
    """
    address = parse_address(url, statement_s=answer_s)
    catalog: Catalog = {kind: Statements(Codec(kind)) for kind in records.ALL}
    news = News()
    failure: BaseException | None = None
    pool, schema = await _opened(address, catalog)
    try:
        async with asyncio.TaskGroup() as tasks:
            storage = PostgresStorage(
                connections=Connections(pool=pool, answer_s=answer_s),
                catalog=catalog,
                schema=schema,
                news=news,
                tasks=tasks,
                answer_s=answer_s,
            )
            listening = None if address.pooled else tasks.create_task(listen(address, news))
            try:
                yield storage
            except asyncio.CancelledError:
                raise  # the group's own way of ending the body when one of its tasks failed
            except BaseException as error:  # noqa: BLE001 - it leaves below as it is, not inside an ExceptionGroup
                failure = error
            finally:
                await storage.close()
                if listening is not None:
                    listening.cancel()
    finally:
        pool.terminate()
    if failure is not None:
        raise failure


async def _opened(address: Address, catalog: Catalog) -> tuple[asyncpg.Pool, int]:
    try:
        async with asyncio.timeout(OPEN_S):
            pool = await asyncpg.create_pool(
                min_size=1, max_size=address.pool_max, connection_class=_Connection, **address.arguments
            )
            try:
                async with pool.acquire() as connection:
                    await _check_server(connection, address.shown)
                    await migrate(connection, address.shown)
                    for table in catalog.values():
                        await connection.fetch(table.nothing)  # what is missing shows here, not at the first lease
                    return pool, await version_of(connection, address.shown)
            except BaseException:
                pool.terminate()
                raise
    except TimeoutError:
        raise Unavailable(f"{address.shown}: no answer; check the address, and that a primary is up") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        said = from_postgres(error)
        raise type(said)(f"{address.shown}: {said}") from None


async def _check_server(connection: asyncpg.Connection, shown: str) -> None:
    """Refused: this server cannot keep what the port promises."""
    if int(await connection.fetchval("SHOW server_version_num")) < SERVER_MIN:
        raise Refused(f"{shown}: PostgreSQL {SERVER_MIN // 10_000} is the oldest that serves; upgrade the server")
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise Refused(f"{shown}: the database's encoding is not UTF8; create one with ENCODING 'UTF8'")
    for name, values in _DURABLE.items():
        found = await connection.fetchval("SELECT current_setting($1)", name)
        if found not in values:
            raise Refused(f"{shown}: {name} is {found}, so acknowledged commits could be lost; set it to {values[0]}")
