"""Files that hold a secret: read only if nobody else can, written so that they are whole or absent.

What is in them does not live here. OSError passes through, for only the caller knows whether a missing file is a
mistake in the configuration or an outage.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kms.errors import BadKey

Stamp = tuple[int, ...]
"""What changes whenever a file is replaced, written, or given other permissions."""

_LOCK_ATTEMPTS_MAX = 10


def stamp(path: Path) -> Stamp | None:
    """The stamp of the file at `path`; None if there is none or it cannot be asked for. One system call."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def refusal(status: os.stat_result, *, user: int, others_may_read: bool = False) -> str | None:
    """Why a file with this status must not be trusted by `user`, as the end of a sentence; None if it may be.

    It must be a regular file that `user` owns, closed to group and others: to reading (unless others_may_read) and
    to writing.
    """
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid != user:
        return f"belongs to user {status.st_uid}, and this process runs as {user}; chown it, or run as its owner"
    closed, wanted = (0o022, "644") if others_may_read else (0o077, "600")
    if status.st_mode & closed:
        mode = stat.S_IMODE(status.st_mode)
        return f"is open to other users (mode {mode:o}); close it with: chmod {wanted}"
    return None


def read_private(path: Path, *, bytes_max: int, others_may_read: bool = False) -> bytes:
    """The bytes of the file at `path`, at most bytes_max.

    The checks are made on the opened file, so that nobody swaps it in between. BadKey: `refusal` says why, or the
    file is larger. OSError: it cannot be opened or read.
    """
    # O_NONBLOCK: a FIFO at this path is refused below instead of blocking until somebody writes to it.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(file, "rb") as reader:
        reason = refusal(os.fstat(file), user=os.geteuid(), others_may_read=others_may_read)
        if reason is not None:
            raise BadKey(f"{path} {reason}")
        content = reader.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise BadKey(f"{path} is larger than {bytes_max} bytes; it is not what its place says")
    return content


def create_private(path: Path, content: bytes) -> None:
    """Make the file `path` with mode 0600, whole and on disk when this returns.

    BadKey: something is at `path` already; it is left as it is. OSError: it cannot be written; nothing is left.
    """
    with _written_beside(path, content) as temporary:
        try:
            # Unlike a rename, a link never replaces what is there, and the name appears with the whole content.
            os.link(temporary, path)
        except FileExistsError:
            raise BadKey(f"{path} exists, and a key file is never overwritten; name another path") from None
    _sync_folder(path)


def replace_private(path: Path, content: bytes) -> None:
    """Put `content` in place of the file `path`, mode 0600: readers see the old file or the new one, never a part.

    On disk when this returns. OSError: it cannot be written; the old file stands.
    """
    with _written_beside(path, content) as temporary:
        temporary.replace(path)
    _sync_folder(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file `path` against every other process that changes it under this lock; readers are not held up.

    BadKey: somebody else holds it now. OSError: it cannot be opened.
    """
    file = _lock(path)
    try:
        yield
    finally:
        os.close(file)


def _lock(path: Path) -> int:
    for _ in range(_LOCK_ATTEMPTS_MAX):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A writer replaces the file: the lock counts only if `path` still names the file that it was taken on.
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            os.close(file)
            raise BadKey(f"{path} is being changed by another process; try again when it is done") from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    raise BadKey(f"{path} changes all the time; find out what replaces it")


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """A temporary file in the folder of `path`, with `content` on disk; gone when the block ends."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as writer:
            os.fchmod(file, 0o600)  # whatever the umask took away
            writer.write(content)
            writer.flush()
            os.fsync(file)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Make the name durable: fsync of a file does not cover the folder entry that leads to it."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
