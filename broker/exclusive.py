"""One broker to a database file: a lock that ends with the process that holds it, however that process ends.

Databases that serve many replicas (PostgreSQL) need none. The lock is the kernel's, on a file beside the database;
SQLite's own locks come and go with each transaction, so they would let two brokers in.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import StartRefused
from storage.sqlite.opening import path_of


class InUse(StartRefused):
    """Another process has this database open; stop it first."""

    code = "database_in_use"


def database_file(url: str) -> Path | None:
    """The file that a storage URL names, None where there is no file. Unreachable: a malformed SQLite URL."""
    return path_of(url) if url.startswith("sqlite:") else None


@contextmanager
def exclusive(url: str) -> Iterator[None]:
    """Hold the database that `url` names against every other `serve`, `init`, `restore` and `migrate` on this machine.

    InUse: one of them has it. StartRefused: the lock file cannot be made beside the database.
    """
    database = database_file(url)
    if database is None:
        yield
        return
    descriptor = _locked(database)
    try:
        yield
    finally:
        # The file stays: if it were removed, two processes could each hold a lock on a file of that name.
        os.close(descriptor)


def _locked(database: Path) -> int:
    path = database.with_name(f"{database.name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartRefused(
            f"the lock {path} cannot be opened ({error.strerror}); check the folder of storage.url and its permissions"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        who = f"process {holder}" if holder.isdecimal() else "another process"
        raise InUse(f"{database} is in use by {who}; stop that broker first, or name another storage.url") from None
    except OSError as error:
        os.close(descriptor)
        raise StartRefused(f"the lock {path} cannot be taken ({error.strerror}); check the disk") from None
    return descriptor
