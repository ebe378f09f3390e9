"""Files that only their owner may read: written whole or not at all, and durable; refused when others can read them.

What is in them does not live here. Key files of a local KMS have their own rules (`kms.private_files`).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import StartRefused


def read_private(path: Path, *, bytes_max: int) -> bytes:
    """The bytes of the file at `path`, at most `bytes_max`.

    StartRefused: it is open to other users, belongs to one, is no regular file, or is larger. OSError: it cannot be
    read. The checks are made on the opened file, so nobody swaps it in between.
    """
    # O_NONBLOCK: a FIFO at this path is refused below instead of blocking until somebody writes to it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        reason = exposure(os.fstat(file.fileno()))
        if reason:
            raise StartRefused(f"{path} {reason}")
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise StartRefused(f"{path} is larger than {bytes_max} bytes; it is not what its place says")
    return content


def exposure(status: os.stat_result) -> str:
    """Why a file with this status holds no secret of ours, as the end of a sentence; "" if it may hold one."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {status.st_uid}, who can read it; chown it to the user that runs this command"
    if status.st_mode & 0o077:
        return f"is open to other users (mode {stat.S_IMODE(status.st_mode):o}); close it with: chmod 600"
    return ""


def create(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make the file `path`, whole and durable when this returns. FileExistsError: something is there; it is left."""
    with _written_beside(path, content, mode) as temporary:
        os.link(temporary, path)  # unlike a rename, a link never replaces what is there
    sync_folder(path.parent)


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put `content` at `path`, whether something is there or not: readers see the old file or the new one."""
    with _written_beside(path, content, mode) as temporary:
        temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` survive power loss: fsync of a file does not cover the entry that leads to it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _written_beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
