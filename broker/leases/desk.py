"""The desk: one loop through which every change of a lease goes, in batches.

What arrives together is decided together at one instant, made durable in one commit, and answered together; what
arrives meanwhile is the next batch. So no two writers of this process ever compete for a lease, and nothing here needs
a lock. What an operation means stands in its own file; fetching what is not in memory, in `fetching`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeGuard

from broker.audit.entries import Entry
from broker.clock import Clock
from broker.errors import BadRequest, BrokerError, Conflict, Denied, NotFound, RateLimited, Unavailable
from broker.leases.batch import Batch
from broker.leases.bugs import bug
from broker.leases.context import Context
from broker.leases.fetching import Fetching
from broker.leases.granting import Grant
from broker.leases.issued.rows import Endings
from broker.leases.operation import InLine, Missing, Operation
from broker.leases.pools.lines import Lines
from broker.leases.refusals import Refusals
from broker.leases.waiting import Waiting
from storage.port import Amended, Committed, Delete
from storage.table import Key, Record


class Writer(Protocol):
    """What the desk needs of the journal."""

    async def commit(
        self,
        entries: Sequence[Entry],
        *,
        inserts: Sequence[Record] = (),
        updates: Sequence[Record | Amended] = (),
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
        self.done: Counter[type[Operation]] = Counter()
        self.failed: dict[str, int] = {}


class Desk:
    """Takes operations with `submit` and carries them out in `run`: those of one worker in the order they came."""

    def __init__(
        self, *, context: Context, writer: Writer, endings: Endings, clock: Clock, trouble: Callable[[], str]
    ) -> None:
        """endings: what ends together with leases.

        trouble: why nothing may be handed out now (a stale feed, rows that were tampered with), or "".
        """
        self._context = context
        self._writer = writer
        self._endings = endings
        self._clock = clock
        self._trouble = trouble
        self._waiting = Waiting(bound=context.settings.queue_max)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._refusals = Refusals()
        self._fetching = Fetching(context=context, again=self._again)
        self.lines = Lines(context=context, clock=clock, again=self._again)
        self.counts = Counts()

    def submit(self, operation: Operation) -> None:
        """Queue an operation. Where there is no room for it, it fails at once with RateLimited."""
        if self._waiting.add(operation):
            self._wake.set()
        else:
            self._fail(operation, RateLimited("the broker has too many requests waiting", retry_after_s=0.5))

    def _again(self, operation: Operation, error: BrokerError | None) -> None:
        """Back from fetching: decide anew, or fail with what fetching met; a refusal goes on record like any other."""
        if error is not None and not _is_recorded(operation, error):
            self._fail(operation, error)
            return
        operation.refused = error
        self._waiting.go_on(operation)
        self._wake.set()

    async def run(self) -> None:
        """Carry out operations until cancelled; a batch being written then is whole or absent, and unanswered."""
        async with asyncio.TaskGroup() as tasks:
            self._fetching.start(tasks)
            self.lines.start(tasks)
            while True:
                self._idle.set()
                await self._wake.wait()
                self._wake.clear()
                self._idle.clear()
                while self._waiting:
                    await self._carry_out(self._take())

    async def drained(self) -> None:
        """Return when nothing waits but in line for a pool, nothing is being fetched and nothing is being written."""
        while self._waiting or self._fetching.busy or not self._idle.is_set():
            await self._idle.wait()
            await asyncio.sleep(0)

    def _take(self) -> list[Operation]:
        settings = self._context.settings
        return self._waiting.take(operations_max=settings.batch_max, leases_max=settings.batch_leases_max)

    async def _carry_out(self, operations: list[Operation]) -> None:
        batch = self._decide(operations)
        try:
            await self._write(batch)
        except (Conflict, BadRequest):
            # Another replica changed one of these leases, or one entry has no place in the log. Alone, each finds out
            # for itself.
            await self._one_by_one(batch.operations)
        except BrokerError as error:
            for operation in batch.operations:
                self._fail(operation, error)
        except Exception as error:  # noqa: BLE001 - as in _decide
            told = bug(error)
            for operation in batch.operations:
                self._fail(operation, told)
        else:
            self._finish(batch)
        finally:
            batch.close()

    def _decide(self, operations: list[Operation]) -> Batch:
        trouble = self._trouble()
        now, mono = self._clock.now(), self._clock.monotonic()
        batch = Batch(context=self._context, now=now, mono=mono, size=len(operations), trouble=trouble)
        later: list[Operation] = []
        touched = batch.touched
        for operation in operations:
            if trouble and operation.gives:
                self._fail(operation, Unavailable(trouble))
                continue
            if operation.refused is not None:
                self._refuse(batch, operation, operation.refused)
                continue
            touches = operation.touches()
            try:
                if touched.keys().isdisjoint(touches):
                    operation.decide(batch)
                elif not operation.join(touched.get(touches[0]), batch):
                    # Whatever comes later and touches the same waits too: those of one lease keep their order.
                    later.append(operation)
                    touched.update(dict.fromkeys(touches))
                    continue
            except Missing as missing:
                self._fetching.fetch(operation, missing)
            except InLine as in_line:
                self.lines.join(in_line.grant)
            except BrokerError as error:
                self._refuse(batch, operation, error)
            except Exception as error:  # noqa: BLE001 - a bug in one operation must not end everybody's leases
                self._fail(operation, bug(error))
            else:
                for name in touches:
                    touched[name] = operation
                batch.operations.append(operation)
        self._waiting.put_back(later)
        return batch

    async def _write(self, batch: Batch) -> None:
        if not (batch.entries or batch.inserts or batch.updates or batch.amended or batch.issued):
            await asyncio.sleep(0)  # else nobody else would run until nothing waits any more
            return
        self.counts.batches += 1
        beside = [*batch.issued, *await self._endings.of(batch.updates, batch.amended, now=batch.now)]
        await self._writer.commit(
            batch.entries,
            inserts=[*batch.inserts, *(row for row in batch.rows if row.rev == 1)],
            updates=[*batch.updates, *batch.amended, *beside, *(row for row in batch.rows if row.rev > 1)],
            deletes=batch.deletes,
            announce=batch.announce,
        )

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
            except Exception as error:  # noqa: BLE001 - as in _decide
                if batch.operations:
                    self._fail(operation, bug(error))
            else:
                self._finish(batch)
            finally:
                batch.close()

    def _finish(self, batch: Batch) -> None:
        self.counts.done.update(map(type, batch.operations))
        for operation in batch.operations:
            try:
                operation.done(batch)
            except Exception as error:  # noqa: BLE001 - as in _decide
                self._fail(operation, bug(error))

    def _refuse(self, batch: Batch, operation: Operation, error: BrokerError) -> None:
        if _is_recorded(operation, error):
            entry = self._refusals.note(operation, error, now=batch.now, mono=batch.mono)
            if entry is not None:
                batch.entries.append(entry)
        batch.issued += map(self._context.issuing.sign, operation.left_over(batch.now))
        self._fail(operation, error)

    def _fail(self, operation: Operation, error: BrokerError) -> None:
        self.counts.failed[error.code] = self.counts.failed.get(error.code, 0) + 1
        operation.fail(error)


def _is_recorded(operation: Operation, error: BrokerError) -> TypeGuard[Grant]:
    """Whether a refusal goes on record: a worker asked for what it may not have, or for what is not there."""
    return isinstance(operation, Grant) and isinstance(error, (Denied, NotFound))
