"""Read storage for operators: with a deadline, and with its errors told in the broker's words. Writing is elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from broker.errors import Unavailable
from storage.errors import StorageError
from storage.port import PAGE_MAX, Page, Storage
from storage.table import Key, R, Record

READ_S: Final = 5.0
"""Longest wait for one record or one page."""


class Stored:
    """What is on record. Every method may raise Unavailable: storage did not answer in 5 s, or cannot serve."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage

    async def get(self, kind: type[R], key: Key) -> R | None:
        """The record, or None. Its MAC, if it has one, is still to be verified."""
        async with _answering():
            return await self._storage.get(kind, key)

    async def get_many(self, kind: type[R], keys: Sequence[Key]) -> dict[Key, R]:
        """Those of at most `PAGE_MAX` records that there are, likewise."""
        async with _answering():
            return await self._storage.get_many(kind, keys)

    async def count(self, kind: type[Record], *, index: str, prefix: Key, limit: int) -> int:
        """As `Storage.count`."""
        async with _answering():
            return await self._storage.count(kind, index=index, prefix=prefix, limit=limit)

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
        """One page, as `Storage.select` gives it."""
        async with _answering():
            return await self._storage.select(
                kind, index=index, prefix=prefix, where=where, after=after, descending=descending, limit=limit
            )


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(READ_S):
            yield
    except TimeoutError:
        raise Unavailable(f"storage did not answer within {READ_S:g} s; retry later") from None
    except StorageError as error:
        raise Unavailable(str(error)) from error
