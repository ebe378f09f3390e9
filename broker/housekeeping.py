"""Forget what has been kept long enough, and close what a crash left open. Nothing here is urgent."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import structlog

from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError
from storage.errors import StorageError
from storage.port import Commit, Delete, Storage
from storage.records import EnrolmentRecord, IdempotencyRecord, LeaseRecord, SessionRecord
from storage.table import Key

log = structlog.get_logger()

_EVERY_S = 60.0
_PAGE = 500
_FEED_KEPT = 100_000
_CODES_KEPT = timedelta(days=30)


class Housekeeping:
    """Prunes in small batches once a minute."""

    def __init__(
        self, *, storage: Storage, authority: Authority, clock: Clock, instance: str, session_retention: timedelta
    ) -> None:
        self._storage = storage
        self._authority = authority
        self._clock = clock
        self._instance = instance
        self._session_retention = session_retention

    async def run(self) -> None:
        """Keep house until cancelled. What fails is tried again a minute later."""
        started_at = self._clock.now()
        orphans = True
        while True:
            try:
                if orphans:
                    await self._close_orphans(started_at)
                    orphans = False
                await self._prune()
            except (StorageError, BrokerError) as error:
                log.warning("housekeeping_postponed", error=str(error))
            await self._clock.sleep(_EVERY_S)

    async def _close_orphans(self, started_at: datetime) -> None:
        """Sessions of this replica's earlier life that nobody closed: their connections died with the process."""
        after: Key | None = None
        while True:
            page = await self._storage.select(
                SessionRecord, where={"instance": self._instance, "ended_at": None}, after=after, limit=_PAGE
            )
            rows = [
                msgspec.structs.replace(
                    row,
                    rev=row.rev + 1,
                    ended_at=started_at,
                    close_code=1006,
                    due_at=started_at + self._session_retention,
                )
                for row in page.records
                if row.connected_at < started_at
            ]
            if rows:
                await self._storage.commit(Commit(updates=rows))
            if page.next is None:
                return
            after = page.next

    async def _prune(self) -> None:
        now = self._clock.now()
        for kind, column in ((LeaseRecord, "prune_at"), (SessionRecord, "due_at"), (IdempotencyRecord, "expires_at")):
            while await self._storage.prune(kind, column, now, _PAGE) == _PAGE:
                pass
        old = [row for row in self._authority.enrolments if row.expires_at < now - _CODES_KEPT]
        for start in range(0, len(old), _PAGE):
            gone = [Delete(EnrolmentRecord, row.key, row.rev) for row in old[start : start + _PAGE]]
            await self._authority.commit([], deletes=gone)
        await self._storage.prune_feed(await self._storage.position() - _FEED_KEPT)
