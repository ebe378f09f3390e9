"""The audit log for auditors: its newest entries, a whole export, verification, the proof of one entry.

What these mean and how they are made is in `broker.audit`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from broker.admin.packing import scratch_folder, tar_of
from broker.admin.stored import Stored
from broker.audit.export import export
from broker.audit.prove import Proof, prove
from broker.audit.report import Report
from broker.audit.source import unpack
from broker.audit.verify import verify_live
from broker.authority.authority import Authority
from storage.port import PAGE_MAX, Storage
from storage.records import AuditBlockRecord, AuditLogRecord, LeaseRecord
from storage.table import Key

LEASES_MAX: Final = 100_000
"""Live leases that a verification compares with the log, the newest ones; they are held in memory."""


class TailEntry(NamedTuple):
    """An entry where it stands; `text` is its canonical JSON."""

    log: int
    seq: int
    text: bytes


class TailPage(NamedTuple):
    """Entries, newest log first and newest entry first. next: go on behind this (log, number)."""

    entries: list[TailEntry]
    next: Key | None


class AuditDesk:
    """Reads the log of every replica. vkey: the verifier key of this cluster."""

    def __init__(self, *, storage: Storage, stored: Stored, authority: Authority, vkey: str, scratch: Path) -> None:
        self._storage = storage
        self._stored = stored
        self._authority = authority
        self._vkey = vkey
        self._scratch = scratch

    async def tail(self, *, after: Key | None, limit: int) -> TailPage:
        """One page, behind the entry that `after` names. Tampered: a block cannot be read."""
        found: list[TailEntry] = []
        log, below = await self._begin(after)
        while log is not None and len(found) <= limit:
            key = None if below is None else (log, below)
            page = await self._stored.select(
                AuditBlockRecord, prefix=(log,), after=key, descending=True, limit=min(PAGE_MAX, limit + 1)
            )
            for block in page.records:
                entries = unpack(block.entries)
                found += [
                    TailEntry(log, block.seq + index, entries[index])
                    for index in range(len(entries) - 1, -1, -1)
                    if below is None or block.seq + index < below
                ]
                if len(found) > limit:
                    break
            if page.next is None:
                log, below = await self._older(log), None
            elif page.records:
                below = page.records[-1].seq
        last = found[limit - 1] if len(found) > limit else None
        return TailPage(entries=found[:limit], next=None if last is None else (last.log, last.seq))

    def exported(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Every log as it is now, as the chunks of a tar archive, once the export is whole."""
        return self._exported()

    @asynccontextmanager
    async def _exported(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async with scratch_folder(self._scratch) as folder:
            await export(self._storage, folder / "audit")
            yield tar_of(folder / "audit")

    async def verify(self) -> Report:
        """Verify every log, every signed row, and that live leases are on record. Unavailable: storage cannot serve."""
        leases = await self._live_leases()
        report = await verify_live(self._storage, vkey=self._vkey, leases=leases)
        rows = [f"{problem}" for problem in await self._authority.check()]
        return msgspec.structs.replace(report, ok=report.ok and not rows, problems=[*report.problems, *rows])

    async def prove(self, log: int, seq: int) -> Proof:
        """The proof for one entry. NotFound; Tampered: what is stored is not what was signed."""
        return await prove(self._storage, log, seq)

    async def _begin(self, after: Key | None) -> tuple[int | None, int | None]:
        if after is not None:
            log, below = after
            return int(log), int(below)
        page = await self._stored.select(AuditLogRecord, descending=True, limit=1)
        return (page.records[0].log if page.records else None), None

    async def _older(self, log: int) -> int | None:
        page = await self._stored.select(AuditLogRecord, after=(log,), descending=True, limit=1)
        return page.records[0].log if page.records else None

    async def _live_leases(self) -> list[LeaseRecord]:
        leases: list[LeaseRecord] = []
        after: Key | None = None
        while len(leases) < LEASES_MAX:
            page = await self._stored.select(LeaseRecord, where={"state": "live"}, after=after, descending=True)
            leases += page.records
            if (after := page.next) is None:
                break
        return leases[:LEASES_MAX]
