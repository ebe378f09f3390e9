"""Fetch what operations found missing in memory, together where that is possible, and hand them back to the desk.

One task reads heads and leases of a batch; each data key that is not cached has one task, however many operations wait
for it, so a slow KMS delays nobody else's tokens. A value that is made for one lease has a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from broker.errors import BrokerError, Tampered, Unavailable
from broker.leases.bugs import told
from broker.leases.context import Context
from broker.leases.operation import Missing, Operation
from broker.vault.errors import SealBroken
from kms.port import Caller
from storage.errors import Refused
from storage.records import LeaseRecord, VersionRecord

Again = Callable[[Operation, BrokerError | None], None]
_Key = tuple[str, str, Caller]


class Fetching:
    """Collects what is missing while a batch is decided; reads it in tasks of the desk's group."""

    def __init__(self, *, context: Context, again: Again) -> None:
        self._context = context
        self._again = again
        self._tasks: asyncio.TaskGroup | None = None
        self._rows: list[tuple[Operation, Missing]] = []
        self._keys: dict[_Key, list[tuple[Operation, str]]] = {}
        self._running = 0

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run in this group from now on."""
        self._tasks = tasks

    @property
    def busy(self) -> bool:
        """Whether anything is being fetched."""
        return self._running > 0

    def fetch(self, operation: Operation, missing: Missing) -> None:
        """Have this operation decided again when what it misses is there. After too many times it fails."""
        operation.attempts += 1
        if operation.attempts > Operation.ATTEMPTS_MAX:
            self._again(operation, Unavailable("the token changes faster than it can be read"))
        elif missing.sealed is not None:
            self._fetch_key(operation, *missing.sealed)
        elif missing.first is not None:
            self._spawn(self._done_first(operation, missing.first))
        else:
            if not self._rows:
                self._spawn(self._read_rows())
            self._rows.append((operation, missing))

    def reread(self, operation: Operation, error: BrokerError) -> None:
        """After a lost compare-and-set: read the operation's leases again, then have it decided again."""
        operation.attempts += 1
        if operation.attempts > Operation.ATTEMPTS_MAX:
            self._again(operation, error)
            return
        self._spawn(self._reread(operation))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None, "run() starts fetching"
        self._running += 1
        self._tasks.create_task(self._counted(work))

    async def _counted(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._running -= 1

    async def _read_rows(self) -> None:
        await asyncio.sleep(0)  # the whole batch says what it misses before anything is read
        waiting, self._rows = self._rows, []
        failure: BrokerError | None = None
        rows: dict[str, LeaseRecord] = {}
        try:
            rows = await self._rows_of(waiting)
        except (Tampered, Refused):
            # One row is bad; who asked for others must not hear of it.
            for operation, missing in waiting:
                await self._read_alone(operation, missing)
            return
        except Exception as error:  # noqa: BLE001 - it is told to those who wait; raised, it would end the desk
            failure = told(error)
        for operation, missing in waiting:
            self._hand_back(operation, missing, rows, failure)

    async def _rows_of(self, waiting: Sequence[tuple[Operation, Missing]]) -> dict[str, LeaseRecord]:
        heads = list(dict.fromkeys(name for _, missing in waiting for name in missing.heads))
        leases = list(dict.fromkeys(lease for _, missing in waiting for lease in missing.leases))
        if heads:
            await self._context.heads.load(heads)
        return await self._context.read_leases(leases)

    async def _read_alone(self, operation: Operation, missing: Missing) -> None:
        """Read what one operation misses, each head by itself."""
        failure: BrokerError | None = None
        rows: dict[str, LeaseRecord] = {}
        for name in missing.heads:
            try:
                await self._context.heads.load([name])
            except Exception as error:  # noqa: BLE001 - as in _read_rows
                if not operation.goes_on_without(name):
                    failure = told(error)
        try:
            rows = await self._context.read_leases(missing.leases)
        except Exception as error:  # noqa: BLE001 - as in _read_rows
            failure = told(error)
        self._hand_back(operation, missing, rows, failure)

    def _hand_back(
        self, operation: Operation, missing: Missing, rows: dict[str, LeaseRecord], failure: BrokerError | None
    ) -> None:
        if failure is None and missing.leases:
            operation.fetched = {lease: rows.get(lease) for lease in missing.leases}
        self._again(operation, failure)

    def _fetch_key(self, operation: Operation, version: VersionRecord, caller: Caller) -> None:
        # All of the caller: a worker that has just joined a group must not hear what was said of it without.
        name = (version.data_key, version.keyring, caller)
        waiting = self._keys.setdefault(name, [])
        waiting.append((operation, version.token))
        if len(waiting) == 1:
            self._spawn(self._warm(name, version, caller))

    async def _warm(self, name: _Key, version: VersionRecord, caller: Caller) -> None:
        failure: BrokerError | None = None
        try:
            (await self._context.vault.open(version, caller)).wipe()
        except SealBroken:
            # The data key is there, and this one version is bad: whoever wants it finds out alone.
            pass
        except Exception as error:  # noqa: BLE001 - as in _read_rows
            failure = told(error)
        for operation, token in self._keys.pop(name):
            spared = failure is not None and operation.goes_on_without(token)
            self._again(operation, None if spared else failure)

    async def _done_first(self, operation: Operation, first: Callable[[], Awaitable[None]]) -> None:
        try:
            await first()
        except Exception as error:  # noqa: BLE001 - as in _read_rows
            self._again(operation, told(error))
        else:
            self._again(operation, None)

    async def _reread(self, operation: Operation) -> None:
        """Bring what is held of these leases in line with storage; a lease that moved or ended is dropped."""
        context = self._context
        lost = [name for name in operation.touches() if name in context.holdings.by_lease]
        try:
            rows: dict[str, LeaseRecord] = await context.read_leases(lost)
        except Exception as error:  # noqa: BLE001 - as in _read_rows
            self._again(operation, told(error))
            return
        for lease in lost:
            context.reconcile(lease, rows.get(lease))
        self._again(operation, None)
