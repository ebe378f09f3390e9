"""Prepare files in a folder of one's own and hand them on in chunks; nothing stays behind, whatever happens."""

from __future__ import annotations

import asyncio
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


@asynccontextmanager
async def scratch_folder(parent: Path) -> AsyncIterator[Path]:
    """A fresh folder (mode 0700) that is removed at the end. Unavailable: the disk does not take it."""
    try:
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=parent, prefix="stream-"))
    except OSError as error:
        raise Unavailable(f"the scratch folder cannot be written: {error.strerror}; mend it, then retry") from None
    try:
        yield folder
    finally:
        # Not awaited to its end if this task is cancelled again; the thread goes on, and start-up clears what is left.
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


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
