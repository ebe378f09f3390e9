"""Read authority rows from storage and let through only verified ones. What the set of them must be: `ledger`.

Every call to storage has a deadline, and storage's errors become the broker's here and nowhere else in this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Collection
from typing import Final, TypeVar

from broker.authority.errors import RowForged, TableAltered
from broker.authority.rowmac import RowMac
from broker.errors import Unavailable
from storage import errors as refused
from storage.port import PAGE_MAX, Storage
from storage.records import ManifestRecord
from storage.table import Key, R, Record

T = TypeVar("T")

READ_DEADLINE_S: Final = 5.0
"""Longest wait for one answer of storage."""
FEED_PAGES_MAX: Final = 100
"""Most pages of the feed that one look ahead reads; what lies behind them is found by reading the table."""


class Reader:
    """Verified reading.

    Every method may raise Unavailable (storage cannot serve, or gave no answer in `READ_DEADLINE_S`), and RowForged (a
    row has a wrong MAC, or is no record at all).
    """

    __slots__ = ("_mac", "_storage")

    def __init__(self, *, storage: Storage, mac: RowMac) -> None:
        self._storage = storage
        self._mac = mac

    async def position(self) -> int:
        """The feed's newest position; what is read after this call is at least that new."""
        return await self._answer(self._storage.position(), "feed")

    async def manifests(self, tables: Collection[str]) -> dict[str, ManifestRecord]:
        """The verified manifests of these tables. TableAltered: one is missing, though `init` inserts all of them."""
        found = await self.rows(ManifestRecord, [(table,) for table in tables])
        for table in tables:
            if (table,) not in found:
                raise TableAltered(f"table {table} has no manifest; restore a backup", table=table)
        return {table: found[table,] for table in tables}

    async def manifest(self, table: str) -> ManifestRecord:
        """The verified manifest of one table. TableAltered: there is none."""
        return (await self.manifests([table]))[table]

    async def rows(self, kind: type[R], keys: Collection[Key]) -> dict[Key, R]:
        """The verified rows there are among any number of keys, each `PAGE_MAX` of them seen at one moment.

        Keys come from the feed, which carries no MAC; what could not be a key of an authority table names no row.
        """
        arity = len(kind.table.key)
        wanted = sorted(key for key in keys if len(key) == arity and all(isinstance(part, str) for part in key))
        found: dict[Key, R] = {}
        for start in range(0, len(wanted), PAGE_MAX):
            some = self._storage.get_many(kind, wanted[start : start + PAGE_MAX])
            found.update(await self._answer(some, kind.table.name))
        for row in found.values():
            self._mac.verify(row)
        return found

    async def every(self, kind: type[R], limit: int = PAGE_MAX) -> AsyncGenerator[R, None]:
        """Every row of a table, by key, NOT verified. Rows written meanwhile are seen as they were or as they are."""
        after: Key | None = None
        while True:
            page = await self._answer(self._storage.select(kind, after=after, limit=limit), kind.table.name)
            for row in page.records:
                yield row
            if page.next is None:
                return
            after = page.next

    async def changed(self, table: str, after: int) -> set[Key]:
        """Keys of the table that the feed names behind position `after`, at most `FEED_PAGES_MAX` pages ahead."""
        keys: set[Key] = set()
        for _ in range(FEED_PAGES_MAX):
            changes = await self._answer(self._storage.feed(after), "feed")
            keys.update(change.key for change in changes if change.table == table)
            if len(changes) < PAGE_MAX:
                break
            after = changes[-1].position
        return keys

    def verify(self, record: Record) -> None:
        """See `RowMac.verify`."""
        self._mac.verify(record)

    async def _answer(self, call: Awaitable[T], table: str) -> T:
        try:
            async with asyncio.timeout(READ_DEADLINE_S):
                return await call
        except refused.Unavailable as error:
            raise Unavailable(str(error)) from error
        except TimeoutError as error:
            raise Unavailable(f"storage did not answer about {table} within {READ_DEADLINE_S:g} s; retry") from error
        except refused.Damaged as error:
            raise RowForged(str(error), table=table) from error
