"""From a URL to an open storage, and back to closed: finds the file, makes it ours, starts threads, stops them.

The schema is `migrations`' business, the settings of a connection `connection`'s.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from storage import records
from storage.codec import Codec
from storage.errors import Unavailable, Unreachable
from storage.sqlite.connection import connect, create_file, use_wal
from storage.sqlite.failures import from_os, from_sqlite
from storage.sqlite.migrations import migrate
from storage.sqlite.readers import READERS, Readers
from storage.sqlite.statements import Catalog, Statements
from storage.sqlite.storage import SqliteStorage
from storage.sqlite.thread import ThreadedConnection
from storage.sqlite.writer import Writer

BUSY_TIMEOUT_S = 2.0
"""How long to wait for a lock that another process holds."""

ANSWER_S = 30.0
"""How long a caller waits for the disk; the disk itself cannot be hurried."""

OPEN_S = 600.0
"""How long opening may take: recovery of a long log, and migrations."""

WRITER_CACHE_KIB = 32_768
READER_CACHE_KIB = 8_192

Opener = Callable[[], sqlite3.Connection]
Prepare = Callable[[sqlite3.Connection, Path], object]
S = TypeVar("S", bound=SqliteStorage)


@asynccontextmanager
async def open_sqlite(
    url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S, answer_s: float = ANSWER_S
) -> AsyncIterator[SqliteStorage]:
    """Open the database file that `url` names, creating it (mode 0600) in an existing folder, and migrate it.

    url: `sqlite:////absolute/path.db` or `sqlite:///relative.db`.
    NotOurs: not SQLite, or another application's. NewerSchema: a newer release wrote it. Damaged: corrupt, or a table
    is missing. Unreachable: a bad URL, no such folder, no permission, read-only. Unavailable: locked for longer than
    `busy_timeout_s`. StorageFull: no room to create or migrate it.
    On leaving, accepted commits are answered first; calls that come later get Unavailable.
    """
    async with opened(
        SqliteStorage, path_of(url), prepare=migrate, busy_timeout_s=busy_timeout_s, answer_s=answer_s
    ) as it:
        yield it


@asynccontextmanager
async def opened(
    handle: type[S], path: Path, *, prepare: Prepare, busy_timeout_s: float = BUSY_TIMEOUT_S, answer_s: float = ANSWER_S
) -> AsyncIterator[S]:
    """A handle on the file, once `prepare` has made its schema. Otherwise as `open_sqlite`."""
    catalog: Catalog = {kind: Statements(Codec(kind)) for kind in records.ALL}
    open_writer = partial(_open_writer, path, busy_timeout_s, catalog, prepare)
    open_reader = partial(_open_reader, path, busy_timeout_s)
    async with AsyncExitStack() as stack:
        # Entered first, left last: the last connection to close folds the log into the file.
        thread = await _start(open_writer, stack)
        connections = [await _start(open_reader, stack) for _ in range(READERS)]
        storage = handle(
            path=path,
            catalog=catalog,
            thread=thread,
            writer=await thread.submit(lambda raw: Writer(connection=raw, path=path, catalog=catalog)),
            readers=Readers(connections=connections, path=path, answer_s=answer_s),
            answer_s=answer_s,
        )
        stack.push_async_callback(storage.close)
        yield storage


def path_of(url: str) -> Path:
    """The file that a `sqlite:` URL names. Unreachable: the URL is not of that form."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "sqlite" or parts.netloc or len(path) < 2 or parts.query or parts.fragment or "\0" in path:
        raise Unreachable("storage.url must be sqlite:////absolute/path.db or sqlite:///relative.db")
    return Path(path[1:])


async def _start(opener: Opener, stack: AsyncExitStack) -> ThreadedConnection:
    try:
        async with asyncio.timeout(OPEN_S):
            return await stack.enter_async_context(ThreadedConnection(opener))
    except TimeoutError:
        raise Unavailable(f"the database could not be opened within {OPEN_S:g} s; check the disk") from None


def _open_writer(path: Path, busy_timeout_s: float, catalog: Catalog, prepare: Prepare) -> sqlite3.Connection:
    try:
        create_file(path)
    except OSError as error:
        raise from_os(error, path) from None
    try:
        connection = connect(path, busy_timeout_s=busy_timeout_s, cache_kib=WRITER_CACHE_KIB, writing=True)
        try:
            prepare(connection, path)
            use_wal(connection, path)
            for table in catalog.values():
                connection.execute(table.nothing)  # a missing table or column shows here, not at the first lease
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from None
    return connection


def _open_reader(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    try:
        return connect(path, busy_timeout_s=busy_timeout_s, cache_kib=READER_CACHE_KIB, writing=False)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from None
