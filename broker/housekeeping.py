"""Forget what has been kept long enough, and close what a crash left open, here or elsewhere. Nothing here is urgent.

All replicas share what there is to do, so one does it: whose the claim of upkeep is. Ending leases is `leases.duties`'.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError
from broker.replicas.claim import Claim
from broker.replicas.roll import replicas
from storage.errors import Conflict, StorageError
from storage.port import Commit, Delete, Expect, Storage
from storage.records import (
    EnrolmentRecord,
    IdempotencyRecord,
    LeaseRecord,
    ReplicaRecord,
    SessionRecord,
    TicketRecord,
    UseRecord,
)
from storage.table import Key

log = structlog.get_logger()

_LOOK_S: Final = 5.0
_PRUNE_S: Final = 60.0
_PAGE: Final = 500
_FEED_KEPT: Final = 100_000
"""Changes kept although everybody has read them: what a replica that was cut off for a while then need not reload."""
_FEED_MAX: Final = 1_000_000
"""Changes kept, about 100 MB, while a living replica has not read them. One that is farther behind starts over."""
_CODES_KEPT: Final = timedelta(days=30)
_USES_S: Final = 3600.0
_USES_KEPT: Final = timedelta(days=1)
"""Uses of what is gone are kept so long after the last: another replica may know of what this one does not know yet."""


class Housekeeping:
    """Closes what dead replicas left every 5 s, and prunes in small batches once a minute."""

    def __init__(
        self,
        *,
        storage: Storage,
        authority: Authority,
        claim: Claim,
        clock: Clock,
        instance: str,
        session_retention: timedelta,
        position: Callable[[], int],
    ) -> None:
        """position: up to where this replica has read the feed."""
        self._storage = storage
        self._authority = authority
        self._claim = claim
        self._clock = clock
        self._instance = instance
        self._session_retention = session_retention
        self._position = position

    async def run(self) -> None:
        """Keep house until cancelled. What fails is tried again at the next turn."""
        started_at = self._clock.now()
        orphans = True
        prune_at = uses_at = self._clock.monotonic()
        while True:
            try:
                if orphans:
                    await self._close(self._instance, at=started_at)
                    await self._leave_lines(self._instance, at=started_at)
                    orphans = False
                claimed = await self._claim.ask()
                if claimed is not None:
                    await self._bury(claimed)
                    if self._clock.monotonic() >= prune_at:
                        prune_at = self._clock.monotonic() + _PRUNE_S
                        await self._prune()
                    if self._clock.monotonic() >= uses_at:
                        uses_at = self._clock.monotonic() + _USES_S
                        await self._forget_uses()
            except (StorageError, BrokerError) as error:
                log.warning("housekeeping_postponed", error=str(error))
            await self._clock.sleep(_LOOK_S)

    async def _bury(self, claimed: Expect) -> None:
        """Close the sessions of replicas that are gone, and forget those replicas.

        A dead one may come back. Each commit relies on its row as it was found, and on the claim, so this replica does
        not close what lives although it may itself have stood still between looking and writing.
        """
        for row in await replicas(self._storage):
            if row.ended_at is None:
                continue
            dead = Expect(ReplicaRecord, row.key, row.rev)
            try:
                closed = await self._close(row.instance, at=row.ended_at, expects=(dead, claimed))
                await self._leave_lines(row.instance, at=row.ended_at, expects=(dead, claimed))
                await self._storage.commit(Commit(deletes=[Delete(*dead)], expects=[claimed]))
            except Conflict:
                log.info("replica_came_back", instance=row.instance)
            else:
                log.info("replica_forgotten", instance=row.instance, sessions_closed=closed)

    async def _close(self, instance: str, *, at: datetime, expects: Sequence[Expect] = ()) -> int:
        """Close the sessions of a replica whose connections died with it at that instant; how many there were.

        expects: what says that it is dead. Without, it lives again, and its sessions since then are left alone.
        """
        after: Key | None = None
        closed = 0
        while True:
            page = await self._storage.select(
                SessionRecord, where={"instance": instance, "ended_at": None}, after=after, limit=_PAGE
            )
            rows = [
                msgspec.structs.replace(
                    row, rev=row.rev + 1, ended_at=at, close_code=1006, due_at=at + self._session_retention
                )
                for row in page.records
                if expects or row.connected_at < at
            ]
            if rows:
                await self._storage.commit(Commit(updates=rows, expects=expects))
                closed += len(rows)
            if page.next is None:
                return closed
            after = page.next

    async def _leave_lines(self, instance: str, *, at: datetime, expects: Sequence[Expect] = ()) -> None:
        """Take the turns of a replica that died at that instant out of all lines, as `_close` its sessions."""
        after: Key | None = None
        while True:
            page = await self._storage.select(TicketRecord, where={"instance": instance}, after=after, limit=_PAGE)
            gone = [Delete(TicketRecord, row.key, row.rev) for row in page.records if expects or row.asked_at < at]
            if gone:
                await self._storage.commit(Commit(deletes=gone, expects=expects))
            if page.next is None:
                return
            after = page.next

    async def _prune(self) -> None:
        """Deleting what is old is the same whoever does it, so it needs no proof of the claim."""
        now = self._clock.now()
        for kind, column in (
            (LeaseRecord, "prune_at"),
            (SessionRecord, "due_at"),
            (IdempotencyRecord, "expires_at"),
            (TicketRecord, "until"),
        ):
            while await self._storage.prune(kind, column, now, _PAGE) == _PAGE:
                pass
        old = [row for row in self._authority.enrolments if row.expires_at < now - _CODES_KEPT]
        for start in range(0, len(old), _PAGE):
            gone = [Delete(EnrolmentRecord, row.key, row.rev) for row in old[start : start + _PAGE]]
            await self._authority.commit([], deletes=gone)
        await self._storage.prune_feed(await self._unread())

    async def _forget_uses(self) -> None:
        """Forget when they were used whose worker, admin or grant is gone."""
        before = self._clock.now() - _USES_KEPT
        after: Key | None = None
        while True:
            page = await self._storage.select(UseRecord, after=after, limit=_PAGE)
            gone = [Delete(UseRecord, row.key, row.rev) for row in page.records if row.last_at < before]
            gone = [delete for delete in gone if self._is_gone(*delete.key)]
            if gone:
                # One of them was used meanwhile: they are looked at again the next time.
                with contextlib.suppress(Conflict):
                    await self._storage.commit(Commit(deletes=gone))
            after = page.next
            if after is None:
                return

    def _is_gone(self, actor: str | int, grant: str | int) -> bool:
        """Whether this replica knows no such actor, or no such grant of a worker."""
        kind, _, name = str(actor).partition(":")
        if kind == "admin":
            return self._authority.admins.get((name,)) is None
        if kind != "worker":
            return False
        return self._authority.workers.get((name,)) is None or bool(
            grant and self._authority.grants.get((grant,)) is None
        )

    async def _unread(self) -> int:
        """Up to which position changes are forgotten."""
        newest = await self._storage.position()
        others = [row for row in await replicas(self._storage) if row.instance != self._instance]
        read = [row.position for row in others if row.ended_at is None]
        return max(newest - _FEED_MAX, min(newest - _FEED_KEPT, self._position(), *read))
