"""The one place where SQLite's errors become the port's. Nothing else in the adapter looks at an SQLite error code."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from storage.errors import (
    Conflict,
    Damaged,
    NotOurs,
    OutOfBounds,
    StorageError,
    StorageFull,
    Unavailable,
    Unreachable,
)

FULL_BELOW_BYTES = 1 << 20
"""A write error on a file system with less room than this counts as a full disk."""

_FULL = (StorageFull, "the disk that holds {path} is full; free space, then retry")
_BUSY = (Unavailable, "{path} is locked by another process; stop it, or retry")
_BROKEN = (Damaged, "{path} is damaged ({error}); restore the newest backup")
_CLOSED = (Unreachable, "{path} cannot be opened for writing ({name}); check its folder and the permissions")

_MEANING: Mapping[int, tuple[type[StorageError], str]] = {
    sqlite3.SQLITE_CONSTRAINT: (OutOfBounds, "a column cannot hold a value: {error}"),
    sqlite3.SQLITE_TOOBIG: (OutOfBounds, "a value is longer than SQLite can hold"),
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: (Unavailable, "reading or writing {path} failed ({name}); check the disk and its limits"),
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_NOTADB: (NotOurs, "{path} is not a tokenbroker database; name another file in storage.url"),
    sqlite3.SQLITE_CORRUPT: _BROKEN,
    sqlite3.SQLITE_FORMAT: _BROKEN,
    sqlite3.SQLITE_SCHEMA: _BROKEN,
    # What a missing table or column gives: every statement of this adapter is right for its own schema.
    sqlite3.SQLITE_ERROR: _BROKEN,
    sqlite3.SQLITE_CANTOPEN: _CLOSED,
    sqlite3.SQLITE_PERM: _CLOSED,
    sqlite3.SQLITE_AUTH: _CLOSED,
    sqlite3.SQLITE_READONLY: _CLOSED,
}
_KEY_TAKEN = {
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}
_OTHER = (Unavailable, "{path} cannot serve ({name}); the same call may succeed later")


def from_sqlite(error: sqlite3.Error, path: Path) -> StorageError:
    """What this SQLite error means to a caller of the port; `path` is named where it helps to mend the cause."""
    code: int = getattr(error, "sqlite_errorcode", -1)  # without one it is Python's, such as for a closed connection
    if code in _KEY_TAKEN:
        return Conflict(f"a key exists already: {error}")
    kind, message = _MEANING.get(code & 0xFF, _OTHER)
    if code & 0xFF == sqlite3.SQLITE_IOERR and _is_full(path):
        kind, message = _FULL
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return kind(message.format(path=path, error=error, name=name))


def from_os(error: OSError, path: Path) -> StorageError:
    """What this error of the operating system means to who opens, backs up or restores `path`."""
    reason = error.strerror or type(error).__name__
    return Unreachable(f"{path} cannot be used ({reason}); check the path, its folder and the permissions")


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < FULL_BELOW_BYTES
    except OSError:
        return False
