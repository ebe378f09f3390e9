"""The desk: one loop through which every change of a lease goes, in batches.

What arrives together is decided together at one instant, made durable in one commit, and answered together; what
arrives meanwhile is the next batch. So no two writers of this process ever compete for a lease, and nothing here needs
a lock. What an operation means stands in its own file; fetching what is not in memory, in `fetching`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from broker.audit.entries import Entry
from broker.clock import Clock
from broker.errors import BrokerError, Conflict, Denied, NotFound, RateLimited, Unavailable
from broker.ids import random_id
from broker.leases.batch import Batch
from broker.leases.context import Context
from broker.leases.fetching import Fetching
from broker.leases.granting import Grant
from broker.leases.operation import Missing, Operation
from broker.leases.refusals import Refusals
from storage.port import Committed, Delete
from storage.table import Key, Record

log = structlog.get_logger()


class Writer(Protocol):
    """What the desk needs of the journal."""

    async def commit(
        self,
        entries: Sequence[Entry],
        *,
        inserts: Sequence[Record] = (),
        updates: Sequence[Record] = (),
        deletes: Sequence[Delete] = (),
        announce: Sequence[tuple[str, Key]] = (),
    ) -> Committed:
        """Make it durable or raise Conflict or Unavailable (broker.errors)."""
        ...


class Counts:
    """What happened since start, for metrics. done: operations carried out, by kind. failed: by error code."""

    __slots__ = ("batches", "done", "failed")

    def __init__(self) -> None:
        self.batches = 0
        self.done: dict[type[Operation], int] = {}
        self.failed: dict[str, int] = {}


class Desk:
    """Takes operations with `submit` and carries them out, in the order they came, in `run`."""

    def __init__(self, *, context: Context, writer: Writer, clock: Clock, trouble: Callable[[], str]) -> None:
        """trouble: why nothing may be handed out now (a stale feed, rows that were tampered with), or ""."""
        self._context = context
        self._writer = writer
        self._clock = clock
        self._trouble = trouble
        self._queue: deque[Operation] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._refusals = Refusals()
        self._fetching = Fetching(context=context, again=self._again)
        self.counts = Counts()

    def submit(self, operation: Operation) -> None:
        """Queue an operation. Beyond `queue_max` waiting ones it fails at once with RateLimited."""
        if len(self._queue) >= self._context.settings.queue_max:
            operation.fail(RateLimited("the broker has too many requests waiting", retry_after_s=0.5))
            return
        self._queue.append(operation)
        self._wake.set()

    def _again(self, operation: Operation, error: BrokerError | None) -> None:
        """Back from fetching: decide anew, or fail with what fetching met."""
        if error is None:
            self._queue.append(operation)
            self._wake.set()
        else:
            self._fail(operation, error)

    async def run(self) -> None:
        """Carry out operations until cancelled; a batch being written then is whole or absent, and unanswered."""
        async with asyncio.TaskGroup() as tasks:
            self._fetching.start(tasks)
            while True:
                self._idle.set()
                await self._wake.wait()
                self._wake.clear()
                self._idle.clear()
                while self._queue:
                    await self._carry_out(self._take())

    async def drained(self) -> None:
        """Return when nothing waits, nothing is being fetched and nothing is being written."""
        while self._queue or self._fetching.busy or not self._idle.is_set():
            await self._idle.wait()
            await asyncio.sleep(0)

    def _take(self) -> list[Operation]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), self._context.settings.batch_max))]

    async def _carry_out(self, operations: list[Operation]) -> None:
        batch = self._decide(operations)
        try:
            await self._write(batch)
        except Conflict:
            # Another replica changed one of these leases. Alone, each finds out for itself.
            await self._one_by_one(batch.operations)
        except BrokerError as error:
            for operation in batch.operations:
                self._fail(operation, error)
        else:
            self._finish(batch)
        finally:
            batch.close()

    def _decide(self, operations: list[Operation]) -> Batch:
        trouble = self._trouble()
        now, mono = self._clock.now(), self._clock.monotonic()
        batch = Batch(context=self._context, now=now, mono=mono, size=len(operations), trouble=trouble)
        later: list[Operation] = []
        for operation in operations:
            touches = operation.touches()
            if not batch.touched.isdisjoint(touches):
                later.append(operation)
                continue
            if trouble and operation.gives:
                self._fail(operation, Unavailable(trouble))
                continue
            try:
                operation.decide(batch)
            except Missing as missing:
                self._fetching.fetch(operation, missing)
            except BrokerError as error:
                self._refuse(batch, operation, error)
            except Exception as error:  # noqa: BLE001 - a bug in one operation must not end everybody's leases
                self._fail(operation, _bug(error))
            else:
                batch.touched.update(touches)
                batch.operations.append(operation)
        if later:
            self._queue.extendleft(reversed(later))
        return batch

    async def _write(self, batch: Batch) -> None:
        if not (batch.entries or batch.inserts or batch.updates):
            return
        self.counts.batches += 1
        await self._writer.commit(batch.entries, inserts=batch.inserts, updates=batch.updates, announce=batch.announce)

    async def _one_by_one(self, operations: list[Operation]) -> None:
        for operation in operations:
            batch = self._decide([operation])
            try:
                await self._write(batch)
            except Conflict as error:
                if batch.operations:
                    self._fetching.reread(operation, error)
            except BrokerError as error:
                if batch.operations:
                    self._fail(operation, error)
            else:
                self._finish(batch)
            finally:
                batch.close()

    def _finish(self, batch: Batch) -> None:
        done = self.counts.done
        for operation in batch.operations:
            done[type(operation)] = done.get(type(operation), 0) + 1
            try:
                operation.done(batch)
            except Exception as error:  # noqa: BLE001 - as in _decide
                self._fail(operation, _bug(error))

    def _refuse(self, batch: Batch, operation: Operation, error: BrokerError) -> None:
        if isinstance(operation, Grant) and isinstance(error, (Denied, NotFound)):
            entry = self._refusals.note(operation, error, now=batch.now, mono=batch.mono)
            if entry is not None:
                batch.entries.append(entry)
        self._fail(operation, error)

    def _fail(self, operation: Operation, error: BrokerError) -> None:
        self.counts.failed[error.code] = self.counts.failed.get(error.code, 0) + 1
        operation.fail(error)


def _bug(error: Exception) -> BrokerError:
    """Our bug, logged under a reference that the answer names. The traceback stays in the log."""
    reference = random_id()
    log.error("lease_operation_failed", reference=reference, exc_info=error)
    return BrokerError(f"internal error; the broker's log has it under {reference}")
