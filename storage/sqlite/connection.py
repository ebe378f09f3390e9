"""One connection to the database file, configured; and whether that file is ours to use.

Creating and changing the schema is in `migrations`; threads are in `thread`. Nothing here or elsewhere opens an
existing database file past SQLite: closing such a descriptor would drop the locks of every connection of this process
(fcntl(2)), and another process could then take the log away under them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote as url_quote

from storage.errors import Damaged, NewerSchema, NotOurs, Unfinished, Unreachable

APPLICATION_ID = 0x746B6272
"""ASCII "tkbr" in the file's header (PRAGMA application_id): tells our files from those of other programs."""

STATEMENTS_CACHED = 512
"""Prepared statements kept per connection. A write uses a statement per table, kind of write and power of two."""

PRAGMAS = (
    # A commit returns only once it would survive power loss; NORMAL would lose the last ones in WAL mode.
    "synchronous = FULL",
    # On macOS fsync alone does not reach the platter. No effect elsewhere.
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
    # No foreign keys are declared; a migration that adds one shall not find them ignored.
    "foreign_keys = ON",
    # A tampered schema must not run functions or virtual tables behind our back.
    "trusted_schema = OFF",
    # Catch a torn page when it is read, not when its nonsense is used.
    "cell_size_check = ON",
    # What is deleted is overwritten: a destroyed version's bytes do not linger in free pages.
    "secure_delete = ON",
    # Reads through a mapping turn an I/O error into SIGBUS, which would end the process.
    "mmap_size = 0",
    # Sorting never spills rows into files outside the data folder.
    "temp_store = MEMORY",
    # Checkpoint every 8 MiB of log: a hot page is copied back once for many commits.
    "wal_autocheckpoint = 2000",
    # After a burst the log shrinks to this again.
    "journal_size_limit = 67108864",
)


def connect(path: Path, *, busy_timeout_s: float, cache_kib: int, writing: bool) -> sqlite3.Connection:
    """An open, configured connection to an existing file; transactions are explicit.

    sqlite3.Error: as SQLite says. The connection belongs to the thread that called.
    """
    connection = sqlite3.connect(
        f"file:{url_quote(str(path))}?mode=rw",  # rw: never creates, so that a typo is not an empty database
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        cached_statements=STATEMENTS_CACHED,
    )
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA cache_size = {-cache_kib}")
        if not writing:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def create_file(path: Path) -> None:
    """Make sure that a file of mode 0600 is there, without touching one that exists. OSError: it cannot be."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory") from None
        return
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were created, renamed or removed in `folder` survive power loss. OSError: it cannot be read."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def schema_version(connection: sqlite3.Connection, path: Path, *, newest: int, filling: bool = False) -> int:
    """The file's schema version, 0 for an empty database. filling: whether it may be one whose filling was begun.

    NotOurs: another application's. NewerSchema: above `newest`. Damaged: ours, but without a version. Unfinished: it
    is being filled.
    """
    # One statement, so that all belong to one moment: another process may be creating the schema.
    application, version, objects, loading = connection.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), "
        "(SELECT count(*) FROM sqlite_schema), (SELECT count(*) FROM sqlite_schema WHERE name = 'loading')"
    ).fetchone()
    if application != APPLICATION_ID:
        if application or version or objects:
            raise NotOurs(f"{path} belongs to another application; name another file in storage.url")
        return 0
    if version > newest:
        raise NewerSchema(
            f"{path} has schema {version}, this tokenbroker knows up to {newest}; "
            "run the release that wrote it, or restore a backup"
        )
    if loading and not filling:
        raise Unfinished(f"{path}: {Unfinished.__doc__}")
    if version < 1:
        raise Damaged(f"{path} has no schema version; restore the newest backup")
    return int(version)


def use_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Switch the file to write-ahead logging. Unreachable: its file system cannot hold a shared-memory log."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unreachable(f"{path}: this file system cannot hold a write-ahead log; use a local disk")
