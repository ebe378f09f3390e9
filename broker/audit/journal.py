"""The one way anything is written: a change and the entries that record it, in one commit with a deadline.

Reading does not pass through here. Opening and closing a log is `broker.audit.opening`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from broker.audit.checkpointer import Checkpointer
from broker.audit.counters import Counters
from broker.audit.encoding import encode
from broker.audit.entries import Entry
from broker.audit.errors import LogBroken, translated
from broker.audit.settings import AuditSettings
from broker.audit.tail import Tail
from broker.audit.tree import leaf_hash
from broker.clock import Clock
from broker.errors import Unavailable
from storage import errors as storage_errors
from storage.port import Amended, AuditAppend, Commit, Committed, Delete, Expect, Storage
from storage.records.audit import AuditLogRecord
from storage.table import Key, Record

_log = structlog.get_logger("tokenbroker.audit")
_Outcome = Committed | Exception


class Journal:
    """Writes to one open log. Make one with `broker.audit.opening.open_journal`."""

    def __init__(
        self,
        *,
        storage: Storage,
        record: AuditLogRecord,
        vkey: str,
        tail: Tail,
        checkpointer: Checkpointer,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        settings: AuditSettings,
        counters: Counters,
    ) -> None:
        self.record = record
        self.vkey = vkey
        self.counters = counters
        self._storage = storage
        self._tail = tail
        self._checkpointer = checkpointer
        self._tasks = tasks
        self._clock = clock
        self._settings = settings
        self._in_flight: set[asyncio.Task[_Outcome]] = set()
        self._in_flight_entries = 0
        self._refusal: str | None = None
        self._full_at: float | None = None

    @property
    def unsigned(self) -> int:
        """Durable entries under no durable checkpoint, for a gauge."""
        return self._tail.unsigned

    @property
    def subtrees(self) -> tuple[int, tuple[bytes, ...]]:
        """How many entries are in the tree, and the roots of its complete subtrees: see `tree.Frontier.of`."""
        return self._tail.frontier.size, self._tail.frontier.roots

    @property
    def accepting(self) -> bool:
        """False once the log is found broken, or is closing."""
        return self._refusal is None

    def healthy(self) -> bool:
        """Whether the log can be written and its checkpoints keep up (within `unsigned_s_max`); readiness asks this."""
        return self.accepting and self._has_room() and self._checkpointer.healthy()

    def _has_room(self) -> bool:
        """No commit found the disk full lately. One that succeeds proves little: small rows fit where old ones were."""
        return self._full_at is None or self._clock.monotonic() - self._full_at > self._settings.full_s

    async def commit(
        self,
        entries: Sequence[Entry],
        *,
        inserts: Sequence[Record] = (),
        updates: Sequence[Record | Amended] = (),
        deletes: Sequence[Delete] = (),
        expects: Sequence[Expect] = (),
        announce: Sequence[tuple[str, Key]] = (),
    ) -> Committed:
        """Make the change and its entries durable together, or change nothing.

        With no entries it is a plain commit. Unavailable also means: not confirmed within `commit_deadline_s`, and a
        caller that is cancelled learns nothing; in both cases the commit goes on by itself, becomes whole or absent,
        and its entries reach the tree. Entries of one caller are numbered in the order of its calls.

        Conflict: a record changed since it was read, one of `expects` too, or exists; nothing was changed.
        BadRequest: an entry over 65 535 bytes, or a commit over storage's bounds; nothing was changed.
        LogBroken: stored entries were removed beneath this process. The commit is durable, but do not act on it;
        every later one is refused.
        Unavailable: storage cannot serve, `unsigned_entries_max` is reached, or the broker is stopping.
        """
        if self._refusal is not None:
            self.counters.refused += 1
            raise Unavailable(self._refusal)
        return await self._commit(
            Commit(
                inserts=inserts,
                updates=updates,
                deletes=deletes,
                expects=(*expects, self._own()) if entries else expects,
                audit=self._append(entries) if entries else None,
                announce=announce,
            )
        )

    def _own(self) -> Expect:
        """Whoever takes this log over moves its row first, so nothing is appended behind what he has read."""
        return Expect(AuditLogRecord, self.record.key, self.record.rev)

    def _append(self, entries: Sequence[Entry]) -> AuditAppend:
        return AuditAppend(self.record.log, tuple(map(encode, entries)))

    async def _commit(self, commit: Commit) -> Committed:
        """Start the task that carries the commit to its end, and wait for it within the deadline."""
        encoded = () if commit.audit is None else commit.audit.entries
        self._admit(len(encoded))
        loop = asyncio.get_running_loop()
        # Resolved with a value also for an error, which nobody would retrieve where the caller was cancelled.
        answer: asyncio.Future[_Outcome] = loop.create_future()
        task = self._tasks.create_task(self._land(commit, encoded))
        self._in_flight.add(task)
        self._in_flight_entries += len(encoded)  # before any other caller is admitted, not when the task starts
        task.add_done_callback(partial(self._ended, len(encoded), answer))
        deadline = loop.call_later(self._settings.commit_deadline_s, self._give_up, answer)
        try:
            outcome = await answer
        finally:
            deadline.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _admit(self, entries: int) -> None:
        bound = self._settings.unsigned_entries_max
        if entries and self._tail.unsigned + self._in_flight_entries + entries > bound:
            self.counters.refused += 1
            raise Unavailable(
                f"{bound} audit entries wait for a checkpoint; storage does not keep up, retry when it has recovered"
            )

    async def _land(self, commit: Commit, encoded: tuple[bytes, ...]) -> _Outcome:
        """Carry one commit to its end, whoever still waits for it. Errors are returned: raised, they would end all."""
        try:
            committed = await self._storage.commit(commit)
            self.counters.commits += 1
            if encoded:
                self._tail.land(committed.first_seq, [leaf_hash(entry) for entry in encoded])
                self.counters.entries += len(encoded)
                self._checkpointer.landed()
        except (storage_errors.Conflict, storage_errors.OutOfBounds) as error:
            return translated(error)
        except storage_errors.StorageError as error:
            if isinstance(error, storage_errors.StorageFull):
                self._full_at = self._clock.monotonic()
            self._doubt(encoded)
            return translated(error)
        except LogBroken as error:
            self._refusal = error.message
            _log.critical("audit.log_broken", origin=self.record.origin, error=error.message)
            return error
        except Exception as error:  # noqa: BLE001 - one commit's bug is told to its caller; it must not end the others
            self._doubt(encoded)
            _log.exception("audit.commit_failed", origin=self.record.origin)
            return error
        else:
            return committed

    def _give_up(self, answer: asyncio.Future[_Outcome]) -> None:
        if not answer.done():
            self.counters.late += 1
            deadline_s = self._settings.commit_deadline_s
            answer.set_result(
                Unavailable(f"storage did not confirm within {deadline_s:g} s; nothing was sent, retry later")
            )

    def _ended(self, entries: int, answer: asyncio.Future[_Outcome], task: asyncio.Task[_Outcome]) -> None:
        self._in_flight.discard(task)
        self._in_flight_entries -= entries
        if answer.done():
            return
        if task.cancelled():
            answer.set_result(Unavailable("the broker is stopping; the commit may or may not have been written"))
        else:
            answer.set_result(task.result())

    def _doubt(self, encoded: tuple[bytes, ...]) -> None:
        if encoded:
            self.counters.doubtful += 1
            self._tail.doubt([leaf_hash(entry) for entry in encoded])

    def refuse(self, reason: str) -> None:
        """Refuse every further `commit` with Unavailable(`reason`)."""
        self._refusal = reason

    async def settle(self) -> bool:
        """Wait up to `close_deadline_s` for commits on their way; whether all have ended. Those left are cut off."""
        if not self._in_flight:
            return True
        _, left = await asyncio.wait(self._in_flight, timeout=self._settings.close_deadline_s)
        for task in left:
            task.cancel()
        return not left

    async def last_word(self, entry: Entry) -> None:
        """Write the closing entry, past the refusal of all others. Errors as in `commit`."""
        await self._commit(Commit(expects=(self._own(),), audit=self._append((entry,))))
