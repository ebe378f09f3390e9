"""Who is connected: open sessions from storage, with how much each holds. Closing them is `broker.session`'s."""

from __future__ import annotations

from dataclasses import dataclass

from broker.admin.ports import LeaseDesk
from broker.admin.stored import Stored
from storage.port import Page
from storage.records import SessionRecord
from storage.table import Key


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionPage:
    """One page of sessions, newest first, and how many live leases each holds, by session."""

    page: Page[SessionRecord]
    leases: dict[str, int]


class Sessions:
    """Lists sessions of every replica."""

    def __init__(self, *, stored: Stored, leases: LeaseDesk) -> None:
        self._stored = stored
        self._leases = leases

    async def list_sessions(
        self, *, worker: str | None, include_ended: bool, after: Key | None, limit: int
    ) -> SessionPage:
        """One page. A page may hold fewer than `limit` although more follow: `next` alone says so."""
        where: dict[str, str | int | None] = {} if include_ended else {"ended_at": None}
        if worker is not None:
            where["worker"] = worker
        page = await self._stored.select(SessionRecord, where=where, after=after, descending=True, limit=limit)
        counts = await self._leases.count_by_session([record.session for record in page.records])
        return SessionPage(page=page, leases={record.session: counts.get(record.session, 0) for record in page.records})
