"""When checkpoints are made: every second with unsigned entries, or every 1024 entries, and at the close.

It also closes gaps: when storage could not say whether a commit was written, and later numbers show that something
was, the block is read back and accepted only if this process wrote exactly that. What a checkpoint says is
`broker.audit.checkpoint`; where it is published is `broker.audit.anchors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from broker.audit.anchors import Relay
from broker.audit.checkpoint import Checkpoint, Link
from broker.audit.counters import Counters
from broker.audit.errors import LogBroken, outside
from broker.audit.note import Signer
from broker.audit.settings import AuditSettings
from broker.audit.source import batch_of
from broker.audit.tail import Tail
from broker.audit.tree import leaf_hash
from broker.clock import Clock
from broker.errors import BrokerError, Conflict
from storage.port import Commit, Storage
from storage.records.audit import AuditBlockRecord, AuditLogRecord, CheckpointRecord

_log = structlog.get_logger("tokenbroker.audit")


class Checkpointer:
    """Signs tree heads of one log, stores them, and offers them to the anchors."""

    def __init__(
        self,
        *,
        storage: Storage,
        clock: Clock,
        signer: Signer,
        record: AuditLogRecord,
        previous: Link | None,
        tail: Tail,
        relays: Sequence[Relay],
        settings: AuditSettings,
        counters: Counters,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._signer = signer
        self._record = record
        self._previous = previous
        self._tail = tail
        self._relays = relays
        self._settings = settings
        self._counters = counters
        self._many = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._unsigned_since: float | None = None

    def landed(self) -> None:
        """Say that entries became durable."""
        if self._unsigned_since is None:
            self._unsigned_since = self._clock.monotonic()
        if self._tail.unsigned >= self._settings.checkpoint_entries:
            self._many.set()

    def healthy(self) -> bool:
        """False when an entry has been durable but without a durable checkpoint for longer than `unsigned_s_max`."""
        since = self._unsigned_since
        return since is None or self._clock.monotonic() - since <= self._settings.unsigned_s_max

    async def every_second(self) -> None:
        """Make checkpoints by time until cancelled."""
        while True:
            await self._clock.sleep(self._settings.checkpoint_every_s)
            await self._try()

    async def every_many(self) -> None:
        """Make checkpoints by number of entries until cancelled."""
        while True:
            await self._many.wait()
            self._many.clear()
            await self._try()

    async def flush(self, *, closing: AuditLogRecord | None = None) -> None:
        """Make the tree's head durable as a checkpoint, if entries are beyond the last one.

        closing: the log's next row, committed together with the checkpoint.
        Unavailable, Conflict, LogBroken: it could not be stored; entries stay unsigned and the next call tries again.
        """
        async with self._one_at_a_time:
            await self._heal()
            if closing is not None and self._tail.gap is not None:
                raise LogBroken(f"audit log {self._record.log} cannot be closed: entry {self._tail.gap} is missing")
            head = Link(origin=self._record.origin, size=self._tail.frontier.size, root=self._tail.frontier.root())
            if head.size == self._tail.signed:
                return
            began = self._clock.monotonic()
            note = self._signer.sign(Checkpoint(head=head, previous=self._previous).text())
            await self._store(head.size, note, closing)
            self._tail.signed = head.size
            self._unsigned_since = began if self._tail.unsigned else None
            self._counters.checkpoints += 1
        for relay in self._relays:
            relay.offer(note)

    async def _try(self) -> None:
        try:
            await self.flush()
        except BrokerError as error:
            self._counters.checkpoint_failures += 1
            _log.warning("audit.checkpoint_failed", origin=self._record.origin, error=error.message)

    async def _store(self, size: int, note: str, closing: AuditLogRecord | None) -> None:
        row = CheckpointRecord(log=self._record.log, size=size, note=note, signed_at=self._clock.now())
        updates = () if closing is None else (closing,)
        try:
            async with outside(deadline_s=self._settings.close_deadline_s):
                await self._storage.commit(Commit(inserts=(row,), updates=updates))
        except Conflict:
            # An attempt that was cut off may have landed. Ed25519 is deterministic, so then the row is this very note.
            async with outside(deadline_s=self._settings.close_deadline_s):
                stored = await self._storage.get(CheckpointRecord, row.key)
            if stored is None or stored.note != note or closing is not None:
                raise

    async def _heal(self) -> None:
        while (gap := self._tail.gap) is not None and self._tail.has_doubts:
            async with outside(deadline_s=self._settings.close_deadline_s):
                block = await self._storage.get(AuditBlockRecord, (self._record.log, gap))
            if block is None:
                return
            batch = batch_of(block)
            if batch.fault:
                raise LogBroken(f"audit log {self._record.log}, entry {gap}: {batch.fault}")
            if not self._tail.settle(gap, [leaf_hash(entry) for entry in batch.entries]):
                return  # on its way from a commit in flight; if from a stranger, the log turns unhealthy
            self._counters.healed += 1
            self.landed()
