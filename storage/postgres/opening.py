"""From a URL to an open storage, and back to closed: pool, checks, migration, the listening connection.

What the URL says is `address`' business, the schema `migrations`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from storage import records
from storage.codec import Codec
from storage.errors import Refused, Unavailable
from storage.news import News
from storage.postgres.address import Address, parse_address
from storage.postgres.connecting import Connector
from storage.postgres.connections import Connections
from storage.postgres.failures import from_postgres
from storage.postgres.listening import listen
from storage.postgres.migrations import migrate, version_of
from storage.postgres.statements import Catalog, Statements
from storage.postgres.storage import PostgresStorage

ANSWER_S = 5.0
"""How long a caller waits for the database: longer than two hosts in a row may take to refuse a connection."""
OPEN_S = 120.0
"""How long opening may take: migrations, and another replica's."""
OPEN_CONNECT_S = 10.0
"""How long each host may take for the first connection."""
SERVER_MIN = 140_000
"""The oldest server: PostgreSQL 14."""

_DURABLE = {"synchronous_commit": ("on", "remote_apply"), "fsync": ("on",), "full_page_writes": ("on",)}
"""Settings under which what was acknowledged survives, each with the values that do."""


Prepare = Callable[[asyncpg.Connection, str], Awaitable[object]]
"""Makes the schema, inside a transaction. The text is what the database is called."""
S = TypeVar("S", bound=PostgresStorage)

_PROBED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError)


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
    table is missing. Refused: settings that could lose acknowledged commits, a missing privilege, another encoding,
    or a schema that is older than this release and not this role's to migrate.
    Unreachable: a bad URL, user, database or certificate. Unavailable: no host answers.
    On leaving, accepted commits are answered first; calls that come later get Unavailable.
    """
    async with opened(PostgresStorage, url, prepare=migrate, answer_s=answer_s) as storage:
        yield storage


@asynccontextmanager
async def opened(handle: type[S], url: str, *, prepare: Prepare, answer_s: float) -> AsyncIterator[S]:
    """A handle on the database, once `prepare` has made its schema. Otherwise as `open_postgres`."""
    address = parse_address(url, statement_s=answer_s)
    catalog: Catalog = {kind: Statements(Codec(kind)) for kind in records.ALL}
    news = News()
    failure: BaseException | None = None
    schema = await _prepared(address, catalog, prepare)
    connector = Connector(address)
    pool = asyncpg.create_pool(
        min_size=0, max_size=address.pool_max, connection_class=_Connection, connect=connector.connect
    )
    await pool
    try:
        async with asyncio.TaskGroup() as tasks:
            storage = handle(
                connections=Connections(pool=pool, tasks=tasks, answer_s=answer_s, pooled=address.pooled),
                connector=Connector(address),
                catalog=catalog,
                schema=schema,
                news=news,
                tasks=tasks,
                answer_s=answer_s,
            )
            listening = None if address.pooled else tasks.create_task(listen(Connector(address), news))
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


async def migrate_postgres(url: str) -> tuple[int, int]:
    """Bring the database that `url` names to this release's schema; the versions before and after.

    For the role that owns the schema. Errors as `open_postgres`.
    """
    async with _connected(parse_address(url, statement_s=OPEN_S)) as (connection, shown):
        before = await migrate(connection, shown)
        return before, await version_of(connection, shown)


async def _prepared(address: Address, catalog: Catalog, prepare: Prepare) -> int:
    """The schema's version, once it is current and whole."""
    async with _connected(address) as (connection, shown):
        await prepare(connection, shown)
        for table in catalog.values():
            await connection.fetch(table.nothing)  # what is missing shows here, not at the first lease
        return await version_of(connection, shown, filling=True)


@asynccontextmanager
async def _connected(address: Address) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """A connection to a server that can keep what the port promises, without the deadline of single statements."""
    shown = address.shown
    try:
        async with asyncio.timeout(OPEN_S):
            connection = await Connector(address, connect_s=OPEN_CONNECT_S).connect(command_timeout=OPEN_S)
            try:
                # PgBouncer lends one server connection for each transaction. What fails is undone by hanging up: a
                # server that has fallen silent would not answer a request to roll back either.
                transaction = connection.transaction()
                await transaction.start()
                await _check_server(connection, shown)
                yield connection, shown
                await transaction.commit()
            finally:
                connection.terminate()
    except TimeoutError:
        raise Unavailable(f"{shown}: no answer; check the address, and that a primary is up") from None
    except _PROBED as error:
        said = from_postgres(error)
        raise type(said)(f"{shown}: {said}") from None


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
