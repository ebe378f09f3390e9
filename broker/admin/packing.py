"""Prepare files in a folder of one's own and hand them on in chunks; nothing stays behind, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from broker.errors import Unavailable

CHUNK_BYTES: Final = 256 * 1024
_BLOCK: Final = tarfile.BLOCKSIZE
_PREFIX: Final = "stream-"
_LEFT_S: Final = 60.0


@asynccontextmanager
async def scratch_folder(parent: Path) -> AsyncIterator[Path]:
    """A fresh folder (mode 0700) that is removed at the end, with those that a crash left behind.

    Unavailable: the disk does not take it.
    """
    try:
        folder, lock = await asyncio.to_thread(_make, parent)
    except OSError as error:
        raise Unavailable(f"the scratch folder cannot be written: {error.strerror}; mend it, then retry") from None
    try:
        yield folder
    finally:
        # Cancelled here once more, the thread still goes on to its end.
        await asyncio.shield(asyncio.to_thread(_remove, folder, lock))


def _make(parent: Path) -> tuple[Path, int]:
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    _clear(parent, older_than=folder.stat().st_mtime - _LEFT_S)
    return folder, lock


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _clear(parent: Path, *, older_than: float) -> None:
    """Remove folders whose process is gone: the kernel let go of their locks. Young ones may not be locked yet."""
    for left in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime > older_than:
                continue
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file, 256 KiB at a time."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


async def tar_of(folder: Path) -> AsyncIterator[bytes]:
    """The files of a folder as a tar archive (POSIX.1-2001), in the order of their names, without owners and times.

    Written by hand, block by block, because tarfile wants to push where a response pulls.
    """
    for path in await asyncio.to_thread(_files, folder):
        size = path.stat().st_size
        info = tarfile.TarInfo(name=f"{folder.name}/{path.relative_to(folder).as_posix()}")
        info.size = size
        info.mode = 0o600
        yield info.tobuf(format=tarfile.PAX_FORMAT)
        async for chunk in file_chunks(path):
            yield chunk
        yield bytes(-size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
