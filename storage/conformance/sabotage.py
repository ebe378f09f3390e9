"""Proof that the laws bite: a storage that passes every call on, for saboteurs to break, and a run of one law on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from storage.conformance.opener import Opener
from storage.errors import StorageError
from storage.port import PAGE_MAX, Change, Commit, Committed, Health, Page, Storage
from storage.table import Key, R, Record


class Passing:
    """Passes every call on. A saboteur derives from it and gets one thing wrong."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    async def get(self, kind: type[R], key: Key) -> R | None:
        """Pass on."""
        return await self.inner.get(kind, key)

    async def get_many(self, kind: type[R], keys: Sequence[Key]) -> dict[Key, R]:
        """Pass on."""
        return await self.inner.get_many(kind, keys)

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
        """Pass on."""
        return await self.inner.select(
            kind, index=index, prefix=prefix, where=where, after=after, descending=descending, limit=limit
        )

    async def count(self, kind: type[Record], *, index: str = "key", prefix: Key = (), limit: int) -> int:
        """Pass on."""
        return await self.inner.count(kind, index=index, prefix=prefix, limit=limit)

    async def due(self, kind: type[R], column: str, before: datetime, limit: int = PAGE_MAX) -> list[R]:
        """Pass on."""
        return await self.inner.due(kind, column, before, limit)

    async def commit(self, commit: Commit) -> Committed:
        """Pass on."""
        return await self.inner.commit(commit)

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        """Pass on."""
        return await self.inner.feed(after, limit)

    async def wait(self, after: int, timeout_s: float) -> None:
        """Pass on."""
        await self.inner.wait(after, timeout_s)

    async def position(self) -> int:
        """Pass on."""
        return await self.inner.position()

    async def prune(self, kind: type[Record], column: str, before: datetime, limit: int = PAGE_MAX) -> int:
        """Pass on."""
        return await self.inner.prune(kind, column, before, limit)

    async def prune_feed(self, up_to: int) -> None:
        """Pass on."""
        await self.inner.prune_feed(up_to)

    async def check(self) -> Health:
        """Pass on."""
        return await self.inner.check()


def sabotaged(opener: Opener, saboteur: Callable[[Storage], Storage]) -> Opener:
    """An opener whose handles are wrapped by the saboteur."""

    @asynccontextmanager
    async def open_sabotaged() -> AsyncIterator[Storage]:
        async with opener() as storage:
            yield saboteur(storage)

    return open_sabotaged


async def catches(law: Callable[[Opener], Awaitable[None]], opener: Opener) -> bool:
    """Whether the law fails on what `opener` opens. Failures that no law means, such as a TypeError, come through."""
    try:
        await law(opener)
    except (AssertionError, pytest.fail.Exception, TimeoutError, StorageError):
        return True
    except BaseExceptionGroup as failures:
        _, rest = failures.split((AssertionError, TimeoutError, StorageError))
        if rest is not None:
            raise rest from None
        return True
    return False
