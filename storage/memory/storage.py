"""The port on a store in memory: bounds, and letting others run between calls. What is kept is `state`'s business."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice

from storage.bounds import check_count, check_keys, check_page
from storage.codec import instant_to_int
from storage.errors import Unavailable
from storage.memory.state import State
from storage.port import PAGE_MAX, Change, Commit, Committed, Health, Page
from storage.table import Key, R, Record


class MemoryStorage:
    """`storage.port.Storage` on a store in memory. Made by `open_memory`."""

    def __init__(self, *, state: State) -> None:
        self._state = state
        self._closed = False

    async def get(self, kind: type[R], key: Key) -> R | None:
        """See the port."""
        await self._turn()
        shelf = self._state.shelves[kind]
        row = shelf.rows.get(tuple(key))
        record: R | None = None if row is None else shelf.codec.from_row(row)
        return record

    async def get_many(self, kind: type[R], keys: Sequence[Key]) -> dict[Key, R]:
        """See the port."""
        check_keys(len(keys))
        await self._turn()
        shelf = self._state.shelves[kind]
        return {key: shelf.codec.from_row(shelf.rows[key]) for key in map(tuple, keys) if key in shelf.rows}

    async def select(
        self,
        kind: type[R],
        *,
        index: str = "key",
        prefix: Key = (),
        where: Mapping[str, str | int | None] | None = None,
        after: Key | None = None,
        descending: bool = False,
        limit: int = PAGE_MAX,
    ) -> Page[R]:
        """See the port."""
        check_page(limit)
        await self._turn()
        shelf = self._state.shelves[kind]
        walk = shelf.walk(index, prefix=prefix, where=where or {}, after=after, descending=descending)
        rows = list(islice(walk, limit + 1))
        more = len(rows) > limit
        del rows[limit:]
        return Page(
            records=[shelf.codec.from_row(row) for row in rows],
            next=shelf.order_of(rows[-1], index) if more else None,
        )

    async def count(self, kind: type[Record], *, index: str = "key", prefix: Key = (), limit: int) -> int:
        """See the port."""
        check_count(limit)
        await self._turn()
        walk = self._state.shelves[kind].walk(index, prefix=prefix, where={}, after=None, descending=False)
        return sum(1 for _ in islice(walk, limit))

    async def due(self, kind: type[R], column: str, before: datetime, limit: int = PAGE_MAX) -> list[R]:
        """See the port."""
        check_page(limit)
        await self._turn()
        shelf = self._state.shelves[kind]
        rows = islice(shelf.due(column, instant_to_int(before) + 1), limit)
        return [shelf.codec.from_row(row) for row in rows]

    async def commit(self, commit: Commit) -> Committed:
        """See the port."""
        await self._turn()
        return self._state.commit(commit)

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        """See the port."""
        check_page(limit)
        await self._turn()
        return list(islice((change for change in self._state.feed if change.position > after), limit))

    async def wait(self, after: int, timeout_s: float) -> None:
        """See the port."""
        await self._turn()
        await self._state.news.wait(after, timeout_s, self.position)

    async def position(self) -> int:
        """See the port."""
        await self._turn()
        return self._state.position

    async def prune(self, kind: type[Record], column: str, before: datetime, limit: int = PAGE_MAX) -> int:
        """See the port."""
        check_page(limit)
        await self._turn()
        return self._state.prune(kind, column, instant_to_int(before), limit)

    async def prune_feed(self, up_to: int) -> None:
        """See the port."""
        await self._turn()
        self._state.prune_feed(up_to)

    async def check(self) -> Health:
        """See the port."""
        await self._turn()
        records = sum(len(shelf.rows) for shelf in self._state.shelves.values())
        return Health(schema=1, facts={"engine": "memory", "records": records})

    def close(self) -> None:
        """Refuse what comes."""
        self._closed = True

    async def _turn(self) -> None:
        """Let others run, as a database would. A call cancelled here did nothing."""
        if self._closed:
            raise Unavailable("storage is closed")
        await asyncio.sleep(0)
