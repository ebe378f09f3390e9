"""Copy a database while it is in use, and put a copy back in place.

Both write a file beside the target and give it its name only when it is whole and on disk.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from urllib.parse import quote as url_quote

from storage.errors import Damaged, NotOurs, Refused, Unavailable
from storage.sqlite.connection import connect, schema_version, sync_folder
from storage.sqlite.failures import from_os, from_sqlite
from storage.sqlite.migrations import NEWEST
from storage.sqlite.thread import ThreadedConnection

_CACHE_KIB = 2_048
_BUSY_TIMEOUT_S = 10.0


async def write_backup(source: Path, target: Path) -> None:
    """Write a consistent, compact copy of the open database `source` to `target` (mode 0600), durable on return.

    Commits go on meanwhile. Failed: nothing under `target`'s name. Cancelled: all or nothing. No part of it is left.
    Refused: `target` exists. Unreachable: it cannot be written. StorageFull: no room.
    """
    given_up = Event()
    async with ThreadedConnection(lambda: _connect(source)) as connection:
        copying = connection.submit(_copy_into, source, target, given_up)
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            # The statement stops at its next step, and if it ended just before, the event keeps the copy from getting
            # its name. Closing the connection waits until the thread has removed the part.
            given_up.set()
            await connection.interrupt()
            copying.add_done_callback(_look_at)
            raise


def restore_sqlite(backup: Path, target: Path) -> None:
    """Put a verified copy of `backup` where `target` says, mode 0600, durable on return. Blocks; for offline use.

    Nothing is ever overwritten. Refused: a database (or its log) is at `target`. NotOurs, NewerSchema: what `backup`
    is. Damaged: its contents do not hold together. Unreachable: a path cannot be used. StorageFull: no room.
    """
    for name in (target.name, f"{target.name}-wal", f"{target.name}-shm", f"{target.name}-journal"):
        if target.with_name(name).exists():
            # A log left behind would be replayed into the restored file.
            raise Refused(f"{target.with_name(name)} exists; move it away before restoring")
    try:
        backup.stat()
    except OSError as error:
        raise from_os(error, backup) from None
    with placed(target) as part:
        _copy_file(backup, part)
        _verify(part, backup)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return connect(path, busy_timeout_s=_BUSY_TIMEOUT_S, cache_kib=_CACHE_KIB, writing=True)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from None


def _look_at(copying: asyncio.Future[None]) -> None:
    """Take notice of the failure of a copy that nobody waits for, or the loop would report it as forgotten."""
    if not copying.cancelled():
        copying.exception()


def _copy_into(connection: sqlite3.Connection, source: Path, target: Path, given_up: Event) -> None:
    if target.exists():
        raise Refused(f"{target} exists; name another file for the backup")
    with placed(target) as part:
        try:
            # VACUUM INTO reads one moment and leaves out free pages, so nothing deleted goes along.
            connection.execute("VACUUM INTO ?", (str(part),))
        except sqlite3.Error as error:
            raise from_sqlite(error, target if _writes_failed(error) else source) from None
        if given_up.is_set():
            raise Unavailable("the backup was given up")


def _copy_file(backup: Path, part: Path) -> None:
    try:
        # Through SQLite, not byte by byte: if `backup` is a database in use, its log belongs to it. Without a log it is
        # read as immutable, since even a read-only connection would leave files beside it.
        mode = "mode=ro" if backup.with_name(f"{backup.name}-wal").exists() else "immutable=1"
        source = sqlite3.connect(f"file:{url_quote(str(backup))}?{mode}", uri=True, timeout=_BUSY_TIMEOUT_S)
        with closing(source), closing(sqlite3.connect(part, isolation_level=None)) as copy:
            source.backup(copy)
    except sqlite3.Error as error:
        raise from_sqlite(error, backup) from None


def _verify(part: Path, backup: Path) -> None:
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            if schema_version(copy, backup, newest=NEWEST) == 0:
                raise NotOurs(f"{backup} is empty, not a backup of a tokenbroker database")
            findings = copy.execute("PRAGMA integrity_check(1)").fetchall()
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, until the broker opens it
    except sqlite3.Error as error:
        raise from_sqlite(error, backup) from None
    if findings != [("ok",)]:
        raise Damaged(f"{backup} is damaged ({findings[0][0]}); use an older backup")


@contextmanager
def placed(target: Path) -> Iterator[Path]:
    """A fresh file beside `target` to write; synced and given the name at the end, removed if anything fails."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            yield part
            _sync(part)
            os.link(part, target)  # unlike a rename, a link never replaces what appeared there meanwhile
        finally:
            part.unlink()
        sync_folder(target.parent)
    except FileExistsError:
        raise Refused(f"{target} exists; nothing was overwritten") from None
    except OSError as error:
        raise from_os(error, target) from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _writes_failed(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
