"""What the broker does about leases on its own: renew them while their sessions live, expire them, retry what failed.

Each duty only finds what is due and hands operations to the desk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

import structlog

from broker.clock import Clock
from broker.errors import BrokerError
from broker.leases.context import Context
from broker.leases.desk import Desk
from broker.leases.ending import End
from broker.leases.held import Held, Holder
from broker.leases.renewing import Renewal
from broker.leases.rotating import Recheck
from broker.leases.surveying import Find, Survey
from storage.errors import StorageError
from storage.records import LeaseRecord

log = structlog.get_logger()

_RETRY_S = 1.0
_PUSH_MAX = 500
_WARM_PAUSE_S = 0.005


class Duties:
    """The background of leasing. `run` owns its loops."""

    def __init__(self, *, context: Context, desk: Desk, clock: Clock) -> None:
        self._context = context
        self._desk = desk
        self._clock = clock
        self._failed: set[Held] = set()
        self._surveys: list[Survey] = []

    async def run(self) -> None:
        """Do all duties until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._expire())
            tasks.create_task(self._retry())
            tasks.create_task(self._warm())

    def recheck(self, find: Find, *, values: bool = True) -> None:
        """Something about the tokens or the authority of these leases changed: push, revoke, or leave them.

        find: gives the leases. It is asked when whatever is being written now is held, so that a grant on its way is
        among them. values: whether a value may be pushed at once; if not, that is tried again in a second.
        """
        found = partial(self._recheck, values=values)
        self._desk.submit(Survey(find=find, found=found, failed=self._surveys.append))

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
            if held is not None and held.expires > now:
                held.renew_at = now + min(_RETRY_S, (held.expires - now) / 4)
                self._context.wheel.set(held)

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._context.settings.renew_tick_s)
            now = self._clock.monotonic()
            due: dict[Holder, None] = dict.fromkeys(held.holder for held in self._context.wheel.turn(now))
            for holder in due:
                self._renew_session(holder, now)

    def _renew_session(self, holder: Holder, now: float) -> None:
        """Renew all leases of the session that have had two fifths of their time, so that they stay together."""
        leases = []
        tick_s = self._context.settings.renew_tick_s
        for held in holder.leases.values():
            # The wheel gives a lease out up to a tick early, and only once.
            early_s = max(tick_s, (held.expires - held.renew_at) / 5)
            if held.renew_at - now <= early_s and held.expires > now:
                self._context.wheel.clear(held)
                leases.append(held.record.lease)
        for start in range(0, len(leases), _PUSH_MAX):
            chunk = tuple(leases[start : start + _PUSH_MAX])
            self._desk.submit(Renewal(holder=holder, leases=chunk, failed=self._renewal_failed))

    async def _retry(self) -> None:
        while True:
            await self._clock.sleep(_RETRY_S)
            surveys, self._surveys = self._surveys, []
            for survey in surveys:
                self._desk.submit(survey)
            failed, self._failed = self._failed, set()
            self._recheck((held for held in failed if not held.holder.closed), values=True)

    async def _warm(self) -> None:
        """Read token heads ahead, so that the first lease of each token costs what later ones do."""
        try:
            await self._context.heads.warm(pause=lambda: self._clock.sleep(_WARM_PAUSE_S))
        except (StorageError, BrokerError) as error:
            log.warning("heads_not_warmed", error=str(error))

    async def _expire(self) -> None:
        settings = self._context.settings
        while True:
            await self._clock.sleep(settings.expiry_tick_s)
            try:
                while await self._expire_some(settings.expiry_batch):
                    pass
            except (StorageError, BrokerError) as error:
                # The rows stay due; an expired lease is refused everywhere by its instant, swept or not.
                log.warning("expiry_postponed", error=str(error))

    async def _expire_some(self, limit: int) -> bool:
        """Expire one batch; whether there may be more."""
        rows = await self._context.storage.due(LeaseRecord, "due_at", self._clock.now(), limit)
        if not rows:
            return False
        end = End(rows=rows, state="expired", reason="", actor="system")
        self._desk.submit(end)
        return bool(await end.ended) and len(rows) == limit
