"""Logs as a stream, from wherever they are kept: what verification, proofs, export and recovery read.

`StorageSource` reads a database; `broker.audit.bundles` reads an export. Nothing here is trusted: a source hands on
what it found, and says where it could not read on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from broker.audit.errors import LogBroken, outside
from storage.port import PAGE_MAX, Storage
from storage.records.audit import AuditBlockRecord, AuditLogRecord, CheckpointRecord
from storage.table import Key

READ_DEADLINE_S = 30.0
"""The longest wait for one page of blocks or checkpoints."""
PAGE_BYTES_WANTED = 8 * 1024 * 1024
"""Pages of blocks are asked for so that they hold about this much; one page may hold more when block sizes jump."""
BLOCKS_AT_FIRST = 16
"""Blocks in the first page, when their size is not known."""
TURN_ENTRIES = 256
"""After so many entries others get their turn: a broker may be serving in the same process."""


class LogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about a log beside its entries. Unsigned, so verification compares it with what is signed.

    entries, checkpoints, faults: how many an export wrote, and what it could not read. None in a live database.
    """

    log: int
    instance: str
    origin: str
    previous: int
    public_key: bytes
    opened_at: datetime
    closed_at: datetime | None = None
    entries: int | None = None
    checkpoints: int | None = None
    faults: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Consecutive entries, the first numbered `first_seq`. `fault` says why there are none: they cannot be read."""

    first_seq: int
    entries: list[bytes]
    fault: str = ""


class Source(Protocol):
    """Where audit logs are read from. Every method may raise `broker.errors.Unavailable`."""

    async def logs(self) -> list[LogFacts]:
        """Every log, in ascending order of number."""
        ...

    def batches(self, log: int) -> AsyncIterator[Batch]:
        """The entries of a log in ascending order, as they are stored: gaps and faults included."""
        ...

    def notes(self, log: int) -> AsyncIterator[tuple[int | None, str]]:
        """The signed checkpoints of a log, ascending, each with the size it is filed under (None: under none)."""
        ...

    async def newest_note(self, log: int) -> tuple[int | None, str] | None:
        """The last of `notes`, or None."""
        ...


def unpack(block: bytes, *, hollow: bool = False) -> list[bytes]:
    """The entries of a block or bundle: each behind its length, two bytes, big-endian.

    hollow: an entry without bytes is allowed; in an export it stands for one that the database had lost.
    LogBroken: an entry without bytes otherwise, or the block ends within an entry.
    """
    entries, at, end = [], 0, len(block)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(block[at:start], "big")
        if (at == start and not hollow) or at > end or start > end:
            raise LogBroken(f"the block is malformed at its byte {start - 2}")
        entries.append(block[start:at])
    return entries


def batch_of(block: AuditBlockRecord) -> Batch:
    """The entries of a stored block; a fault when it is malformed or holds another number of them than it says."""
    try:
        entries = unpack(block.entries)
    except LogBroken as error:
        return Batch(block.seq, [], error.message)
    if len(entries) != block.count:
        return Batch(block.seq, [], f"the block says {block.count} entries and holds {len(entries)}")
    return Batch(block.seq, entries)


class StorageSource:
    """The logs of a database, read page by page."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage

    async def logs(self) -> list[LogFacts]:
        found: list[LogFacts] = []
        after: Key | None = None
        while True:
            async with outside(deadline_s=READ_DEADLINE_S):
                page = await self._storage.select(AuditLogRecord, after=after)
            found.extend(facts_of(record) for record in page.records)
            after = page.next
            if after is None:
                return found

    async def batches(self, log: int, first: int = 0) -> AsyncIterator[Batch]:
        """See `Source`; from the block that begins with entry `first`, or the next one behind it."""
        after: Key | None = (log, first - 1) if first else None
        limit = BLOCKS_AT_FIRST
        while True:
            async with outside(deadline_s=READ_DEADLINE_S):
                page = await self._storage.select(AuditBlockRecord, prefix=(log,), after=after, limit=limit)
            read_bytes = busy = 0
            for block in page.records:
                read_bytes += len(block.entries)
                busy += block.count
                if busy > TURN_ENTRIES:
                    busy = 0
                    await asyncio.sleep(0)
                yield batch_of(block)
            after = page.next
            if after is None:
                return
            limit = next_limit(limit, len(page.records), read_bytes)

    async def notes(self, log: int) -> AsyncIterator[tuple[int | None, str]]:
        after: Key | None = None
        while True:
            async with outside(deadline_s=READ_DEADLINE_S):
                page = await self._storage.select(CheckpointRecord, prefix=(log,), after=after)
            for record in page.records:
                yield record.size, record.note
            after = page.next
            if after is None:
                return

    async def newest_note(self, log: int) -> tuple[int | None, str] | None:
        async with outside(deadline_s=READ_DEADLINE_S):
            page = await self._storage.select(CheckpointRecord, prefix=(log,), descending=True, limit=1)
        return (page.records[0].size, page.records[0].note) if page.records else None


def next_limit(limit: int, blocks: int, read_bytes: int) -> int:
    """How many blocks the next page should have, when the last one was asked for `limit` and got these."""
    return max(1, min(PAGE_MAX, limit * 4, PAGE_BYTES_WANTED * blocks // max(1, read_bytes)))


def facts_of(record: AuditLogRecord) -> LogFacts:
    """The facts in a stored log row."""
    return LogFacts(
        log=record.log,
        instance=record.instance,
        origin=record.origin,
        previous=record.previous,
        public_key=record.public_key,
        opened_at=record.opened_at,
        closed_at=record.closed_at,
    )
