"""Copy a whole database into another one, record by record, and compare two: whatever adapters they belong to.

Memory is bounded by pages, not by the database. What a copy is for, and when it may be served, is not decided here;
nor are MACs and signatures looked at, which are copied like everything else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import msgspec

from storage import records
from storage.port import PAGE_MAX, Loading, Moment, Storage
from storage.records import RootRecord
from storage.records.audit import AuditLogRecord
from storage.table import Key, R, Record

PAGE_BYTES_WANTED: Final = 4 * 2**20
"""Pages are asked for so that they hold about this much; one page may hold more when the sizes of rows jump."""
PAGE_AT_FIRST: Final = 16
"""Records in the first page of a table, when their size is not known."""
GROWTH: Final = 4
"""A page has at most so many times the records of the one before."""
DIFFERENCES_MAX: Final = 100
"""Most differences of one table that are named; all are counted."""

ORDER: Final[tuple[type[Record], ...]] = (*(kind for kind in records.ALL if kind is not RootRecord), RootRecord)
"""Every record type; the root comes last, for without it nobody takes a database for a cluster."""

Told = Callable[[type[Record], int], None]
"""Told of the table, and how many further records of it are done."""
Seen = Callable[[Record], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two tables of one name. count: records of the first. differing: how many differ; named: the first of those."""

    table: str
    count: int
    differing: int
    named: tuple[str, ...]


async def fingerprint(source: Storage) -> str:
    """A text that changes whenever a broker has served the database meanwhile: each start opens an audit log."""
    page = await source.select(AuditLogRecord, descending=True, limit=1)
    newest = page.records[0] if page.records else None
    log = "no log" if newest is None else f"{newest.origin} log {newest.log} rev {newest.rev}"
    return f"{log}, position {await source.position()}"


async def copy_records(source: Moment, target: Loading, told: Told, *, page_max: int = PAGE_MAX) -> None:
    """Load every record that `target` lacks, in the order of the keys: what is there already was loaded in that order.

    page_max: most records of a page; reading and writing one holds up whatever else the event loop serves.
    Whatever either side raises comes through; what was loaded stays, and the same call goes on behind it.
    """
    for kind in ORDER:
        there = await target.select(kind, descending=True, limit=1)
        after = there.records[-1].key if there.records else None
        async with aclosing(_pages(source, kind, after, page_max)) as pages:
            async for page in pages:
                await target.load(page)
                told(kind, len(page))


async def compare(source: Moment, target: Moment, kind: type[Record], seen: Seen) -> Comparison:
    """Read one table of both from end to end and compare each record. seen: told of each that is equal in both."""
    table = kind.table.name
    named: list[str] = []
    count = differing = 0
    async with aclosing(_each(source, kind)) as wanted, aclosing(_each(target, kind)) as found:
        left, right = await anext(wanted, None), await anext(found, None)
        while left is not None or right is not None:
            trouble = ""
            if right is None or (left is not None and left.key < right.key):
                assert left is not None
                trouble = f"table {table}: {left.key!r} is missing"
                count += 1
                left = await anext(wanted, None)
            elif left is None or right.key < left.key:
                trouble = f"table {table}: {right.key!r} is there, and not in the source"
                right = await anext(found, None)
            else:
                if left == right:
                    seen(left)
                else:
                    trouble = f"table {table}: {left.key!r} differs"
                count += 1
                left, right = await anext(wanted, None), await anext(found, None)
            if trouble:
                differing += 1
                if len(named) < DIFFERENCES_MAX:
                    named.append(trouble)
    return Comparison(table=table, count=count, differing=differing, named=tuple(named))


async def _each(storage: Moment, kind: type[R]) -> AsyncGenerator[R, None]:
    async with aclosing(_pages(storage, kind, None, PAGE_MAX)) as pages:
        async for page in pages:
            for record in page:
                yield record


async def _pages(storage: Moment, kind: type[R], after: Key | None, page_max: int) -> AsyncGenerator[list[R], None]:
    """Every record behind `after`, in the order of the key, in pages of about `PAGE_BYTES_WANTED`."""
    limit = PAGE_AT_FIRST
    while True:
        page = await storage.select(kind, after=after, limit=limit)
        if page.records:
            yield page.records
        after = page.next
        if after is None:
            return
        size = sum(map(_weight, page.records))
        limit = max(1, min(page_max, limit * GROWTH, PAGE_BYTES_WANTED * len(page.records) // size))


def _weight(record: Record) -> int:
    """About how many bytes the record takes; at least one."""
    cells = msgspec.structs.astuple(record)
    return 64 + sum(len(cell) for cell in cells if isinstance(cell, (bytes, str)))
