"""Files that arrive from the broker: whole and durable under their name, or not there at all; mode 0600."""

from __future__ import annotations

import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from broker.cli.failures import CommandFailed
from broker.private_files import sync_folder

MEMBERS_MAX: Final = 10_000_000
"""Files in one archive; an export holds 256 entries to a file."""


def refuse_existing(target: Path) -> None:
    """Return if something may be written at `target`. CommandFailed: it exists, or its folder does not."""
    if target.exists() or target.is_symlink():
        raise CommandFailed(f"{target} exists; name another one, for nothing is overwritten")
    if not target.absolute().parent.is_dir():
        raise CommandFailed(f"there is no folder {target.absolute().parent}; make it first")


async def receive(chunks: AsyncIterator[bytes], target: Path) -> int:
    """Write the chunks to `target`, which must not exist; returns their bytes. FileExistsError; OSError."""
    with _arriving(target) as part:
        size = 0
        with _private(part) as file:
            async for chunk in chunks:
                file.write(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)
    _sync(target)
    return size


async def receive_folder(chunks: AsyncIterator[bytes], target: Path) -> int:
    """Unpack a tar archive, whose names share one leading folder, as the folder `target`; returns its files.

    CommandFailed: the archive holds anything but plain files below that folder.
    """
    folder = _beside(target)
    with _arriving(target) as part:
        with _private(part) as file:
            async for chunk in chunks:
                file.write(chunk)
        folder.mkdir(mode=0o700)
        try:
            files = _unpack(part, folder)
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    _sync(target)
    return files


def _unpack(archive: Path, folder: Path) -> int:
    files = 0
    with tarfile.open(archive, mode="r:") as tar:
        for member in tar:
            _, *inner = PurePosixPath(member.name).parts
            content = tar.extractfile(member) if member.isreg() else None
            # The broker is not trusted with places outside the folder: it may be somebody else's by now.
            if content is None or not inner or ".." in inner or member.name.startswith("/") or files >= MEMBERS_MAX:
                raise CommandFailed("the export holds what no export holds; nothing was written")
            path = folder.joinpath(*inner)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with content, _private(path) as file:
                while block := content.read(1 << 20):
                    file.write(block)
            files += 1
    return files


@contextmanager
def _arriving(target: Path) -> Iterator[Path]:
    part = _beside(target)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _sync(target: Path) -> None:
    sync_folder(target.absolute().parent)


def _beside(target: Path) -> Path:
    return target.absolute().with_name(f".{target.name}.{secrets.token_hex(8)}.part")


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
