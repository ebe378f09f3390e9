"""What the broker does about leases on its own: renew them while their sessions live, expire them, retry what failed.

Each duty only finds what is due and hands operations to the desk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog

from broker.clock import Clock
from broker.errors import BrokerError
from broker.leases.context import Context
from broker.leases.desk import Desk
from broker.leases.ending import End
from broker.leases.held import Held, Holder
from broker.leases.reconciling import Named, Reconcile
from broker.leases.renewing import Renewal
from broker.leases.rotating import Recheck
from broker.leases.surveying import Find, Survey
from broker.replicas.skew import REFUSE_S
from storage.errors import StorageError
from storage.port import Expect
from storage.records import LeaseRecord

log = structlog.get_logger()
T = TypeVar("T")

_RETRY_S = 1.0
_PUSH_MAX = 500
_WARM_PAUSE_S = 0.005


class Duties:
    """The background of leasing. `run` owns its loops."""

    def __init__(
        self, *, context: Context, desk: Desk, clock: Clock, upkeep: Callable[[], Awaitable[Expect | None]]
    ) -> None:
        """upkeep: not None if leases that nobody holds are this replica's to end. It may raise what storage raises."""
        self._context = context
        self._desk = desk
        self._clock = clock
        self._upkeep = upkeep
        self._over: dict[Held, None] = {}
        self._failed: set[Held] = set()
        self._surveys: list[Survey] = []
        self._unread: list[Named] = []

    async def run(self) -> None:
        """Do all duties until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._expire())
            tasks.create_task(self._retry())
            tasks.create_task(self._warm())

    def recheck(self, find: Find, *, values: bool = True, heads: tuple[str, ...] = ()) -> None:
        """Something about the tokens or the authority of these leases changed: push, revoke, or leave them.

        find: gives the leases. It is asked when whatever is being written now is held, so that a grant on its way is
        among them. values: whether a value may be pushed at once; if not, that is tried again in a second. heads: the
        tokens that all of them are of, where those are few.
        """
        found = partial(self._recheck, values=values)
        self._desk.submit(Survey(find=find, found=found, failed=self._surveys.append, heads=heads))

    def reconcile(self, named: Named) -> None:
        """The rows of these leases changed elsewhere: bring those that are held here in line, now or in a second.

        named: gives the leases. It is asked as `find` of `recheck` is.
        """
        self._desk.submit(Reconcile(named=named, failed=self._unread.append))

    def _recheck(self, leases: Iterable[Held], *, values: bool) -> None:
        for held in leases:
            self._desk.submit(Recheck(held, failed=self._recheck_failed, values=values))

    def _recheck_failed(self, operation: Recheck) -> None:
        self._failed.add(operation.held)

    def _renewal_failed(self, operation: Renewal) -> None:
        """The leases run on until they expire; try again soon, and several times before a short one does."""
        now = self._clock.monotonic()
        for lease in operation.leases:
            held = self._context.holdings.by_lease.get(lease)
            if held is not None:
                left_s = held.expires - now
                held.renew_at = now + min(_RETRY_S, left_s / 4) if left_s > 0 else held.expires
                self._context.wheel.set(held)

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._context.settings.renew_tick_s)
            now = self._clock.monotonic()
            due: dict[Holder, None] = {}
            for held in self._context.wheel.turn(now):
                if held.expires <= now:
                    self._over[held] = None
                elif held.renew_at >= held.expires:
                    self._context.wheel.set(held)  # the wheel gives a lease out up to a tick early
                else:
                    due[held.holder] = None
            for holder in due:
                self._renew_session(holder, now)

    def _renew_session(self, holder: Holder, now: float) -> None:
        """Renew all leases of the session that have had two fifths of their time, so that they stay together."""
        leases = []
        tick_s = self._context.settings.renew_tick_s
        for held in holder.leases.values():
            # The wheel gives a lease out up to a tick early, and only once.
            early_s = max(tick_s, (held.expires - held.renew_at) / 5)
            if held.renew_at < held.expires and held.renew_at - now <= early_s and held.expires > now:
                self._context.wheel.clear(held)
                leases.append(held.record.lease)
        for start in range(0, len(leases), _PUSH_MAX):
            chunk = tuple(leases[start : start + _PUSH_MAX])
            self._desk.submit(Renewal(holder=holder, leases=chunk, failed=self._renewal_failed))

    async def _retry(self) -> None:
        while True:
            await self._clock.sleep(_RETRY_S)
            for survey in _taken(self._surveys):
                self._desk.submit(survey)
            for named in _taken(self._unread):
                self.reconcile(named)
            failed, self._failed = self._failed, set()
            self._recheck((held for held in failed if not held.holder.closed), values=True)

    async def _warm(self) -> None:
        """Read ahead how members of pools do, and token heads: first leases cost what later ones do."""
        try:
            await self._context.pools.reload()
            await self._context.heads.warm(pause=lambda: self._clock.sleep(_WARM_PAUSE_S))
        except (StorageError, BrokerError) as error:
            log.warning("heads_not_warmed", error=str(error))

    async def _expire(self) -> None:
        settings = self._context.settings
        while True:
            await self._clock.sleep(settings.expiry_tick_s)
            try:
                await self._end_held(settings.expiry_batch)
                if await self._upkeep() is not None:
                    while await self._end_left(settings.expiry_batch):
                        pass
            except (StorageError, BrokerError) as error:
                # The rows stay due; an expired lease is refused everywhere by its instant, swept or not.
                log.warning("expiry_postponed", error=str(error))

    async def _end_held(self, limit: int) -> None:
        """End what ran out in the hands of this replica's workers."""
        by_lease, now = self._context.holdings.by_lease, self._clock.monotonic()
        self._over = {
            held: None for held in self._over if by_lease.get(held.record.lease) is held and held.expires <= now
        }
        held = list(self._over)
        for start in range(0, len(held), limit):
            await self._end([each.record for each in held[start : start + limit]])

    async def _end_left(self, limit: int) -> bool:
        """End one batch of what ran out and is held by nobody; whether there may be more.

        What another replica's workers hold it ends itself. Only if it has not for longer than clocks may differ, and so
        is late or dead, is it done here: two that end the same lease cost each other a commit.
        """
        now, by_lease = self._clock.now(), self._context.holdings.by_lease
        rows = await self._context.storage.due(LeaseRecord, "due_at", now, limit)
        late_at = now - timedelta(seconds=REFUSE_S)
        left = [
            row
            for row in rows
            if row.lease not in by_lease and (row.instance == self._context.instance or row.expires_at <= late_at)
        ]
        return bool(left) and bool(await self._end(left)) and len(rows) == limit

    async def _end(self, rows: list[LeaseRecord]) -> list[LeaseRecord]:
        end = End(rows=rows, state="expired", reason="", actor="system")
        self._desk.submit(end)
        return await end.ended


def _taken(waiting: list[T]) -> list[T]:
    """What waits, which waits no longer. The list stays the same one: those on their way fail into it."""
    taken = waiting.copy()
    waiting.clear()
    return taken
