"""Leasing as administration sees it: list, tell, count, revoke. The laws are in `broker.admin.ports.LeaseDesk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from broker.admin.ports import LeaseEvent, LeaseRef, RevokeReport, Timeline
from broker.clock import Clock
from broker.errors import BadRequest
from broker.leases.context import Context
from broker.leases.history import Event
from broker.leases.listing import check_on_record, list_leases
from broker.leases.revoking import Revoking
from broker.leases.timeline import timeline
from storage.port import PAGE_MAX, Page
from storage.records import LeaseRecord
from storage.table import Key


class LeaseView:
    """Answers from the record, so for every replica."""

    def __init__(self, *, context: Context, revoking: Revoking, clock: Clock) -> None:
        self._context = context
        self._revoking = revoking
        self._clock = clock
        self._retention = timedelta(seconds=context.settings.retention_s)

    async def list_leases(
        self,
        *,
        token: str | None,
        worker: str | None,
        at: datetime | None,
        include_ended: bool,
        after: Key | None,
        limit: int,
    ) -> Page[LeaseRecord]:
        """One page of leases in the order of granting."""
        if at is not None:
            check_on_record("at", at, now=self._clock.now(), retention=self._retention)
        return await list_leases(
            self._context.storage,
            self._clock,
            token=token,
            worker=worker,
            at=at,
            include_ended=include_ended,
            after=after,
            limit=limit,
        )

    async def timeline(
        self,
        *,
        token: str | None,
        worker: str | None,
        since: datetime | None,
        until: datetime | None,
        after: Key | None,
        limit: int,
    ) -> Timeline:
        """One page of what happened, in order of time."""
        now = self._clock.now()
        if token is None and worker is None:
            raise BadRequest("token, worker: name one of them, or both")
        for field, instant in (("from", since), ("to", until)):
            if instant is not None:
                check_on_record(field, instant, now=now, retention=self._retention)
        since, until = since or now - self._retention, until or now
        if since > until:
            raise BadRequest("from, to: the first is after the second; turn them round")
        page = await timeline(
            self._context.storage,
            token=token,
            worker=worker,
            since=since,
            until=until,
            now=now,
            after=after,
            limit=limit,
        )
        return Timeline(events=tuple(map(_told, page.events)), next=page.next)

    async def count_by_session(self, sessions: Sequence[str]) -> Mapping[str, int]:
        """How many live leases each of these sessions holds: of this replica's from memory, else from the record."""
        counts = dict.fromkeys(sessions, 0)
        here = self._context.holdings.count_by_session()
        elsewhere = counts.keys() - here.keys()
        counts.update((session, count) for session, count in here.items() if session in counts)
        if not elsewhere:
            return counts
        after: Key | None = None
        while True:
            page = await list_leases(self._context.storage, self._clock, after=after, limit=PAGE_MAX)
            for record in page.records:
                if record.session in elsewhere:
                    counts[record.session] += 1
            after = page.next
            if after is None:
                return counts

    async def revoke(
        self, *, lease: str | None, token: str | None, worker: str | None, reason: str, actor: str, wait_s: float
    ) -> RevokeReport:
        """End the leases that exactly one selector names; wait for their wipes."""
        done = await self._revoking.revoke(
            lease=lease, token=token, worker=worker, reason=reason, actor=actor, wait_s=wait_s
        )
        return RevokeReport(
            revoked=tuple(map(_ref, done.revoked)), wiped=tuple(map(_ref, done.wiped)), missing=tuple(done.missing)
        )


def _ref(record: LeaseRecord) -> LeaseRef:
    return LeaseRef(lease=record.lease, worker=record.worker, token=record.token, member=record.member)


def _told(event: Event) -> LeaseEvent:
    ref = LeaseRef(lease=event.lease, worker=event.worker, token=event.token, member=event.member)
    return LeaseEvent(at=event.at, event=event.event, ref=ref, version=event.version, detail=event.detail)
