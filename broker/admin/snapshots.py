"""Copy the database while it serves, for whoever keeps the copy elsewhere. Putting one back is done offline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from broker.admin.packing import file_chunks, scratch_folder
from broker.audit.entries import BackupTaken
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import NotFound, Unavailable
from storage.errors import StorageError
from storage.port import Storage


@runtime_checkable
class _CanBackup(Protocol):
    """The optional power `storage.port.Backup`."""

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to `path`."""
        ...


class Snapshots:
    """Makes copies on the scratch disk and streams them from there."""

    def __init__(self, *, storage: Storage, authority: Authority, clock: Clock, scratch: Path) -> None:
        self._storage = storage
        self._authority = authority
        self._clock = clock
        self._scratch = scratch

    def backup(self, *, actor: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A consistent copy of the whole database in chunks, once it is whole and on record.

        NotFound: this database has a backup of its own instead. Unavailable: the copy could not be made.
        """
        return self._copied(actor)

    def name(self) -> str:
        """What a copy made now is called."""
        return f"tokenbroker-{self._clock.now():%Y%m%dT%H%M%SZ}.backup"

    @asynccontextmanager
    async def _copied(self, actor: str) -> AsyncIterator[AsyncIterator[bytes]]:
        if not isinstance(self._storage, _CanBackup):
            raise NotFound("this database cannot be copied through the broker; use its own backup tool")
        name = self.name()
        async with scratch_folder(self._scratch) as folder:
            try:
                await self._storage.backup(folder / name)
            except StorageError as error:
                raise Unavailable(str(error)) from error
            await self._authority.commit((BackupTaken(at=self._clock.now(), actor=actor, name=name),))
            yield file_chunks(folder / name)
