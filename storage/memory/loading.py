"""Fill a store in memory with the records of another database."""

from __future__ import annotations

from collections.abc import Sequence

from storage.bounds import check_page
from storage.memory.storage import MemoryStorage
from storage.port import Commit
from storage.table import Record


class MemoryLoading(MemoryStorage):
    """`storage.port.Loading` on a store in memory. Made by `load_memory`."""

    async def load(self, records: Sequence[Record]) -> None:
        """See the port."""
        check_page(len(records))
        await self._turn()
        self._state.commit(Commit(inserts=records))

    async def finish(self, position: int) -> None:
        """See the port."""
        await self._turn()
        self._state.finish_loading(position)
