"""Leasing as administration sees it: list, count, revoke. The laws are in `broker.admin.ports.LeaseDesk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from broker.admin.ports import LeaseRef, RevokeReport
from broker.clock import Clock
from broker.leases.listing import list_leases
from broker.leases.revoking import Revoking
from storage.port import PAGE_MAX, Page, Storage
from storage.records import LeaseRecord
from storage.table import Key


class LeaseView:
    """Answers from the record, so for every replica."""

    def __init__(self, *, storage: Storage, revoking: Revoking, clock: Clock) -> None:
        self._storage = storage
        self._revoking = revoking
        self._clock = clock

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
        return await list_leases(
            self._storage,
            self._clock,
            token=token,
            worker=worker,
            at=at,
            include_ended=include_ended,
            after=after,
            limit=limit,
        )

    async def count_by_session(self, sessions: Sequence[str]) -> Mapping[str, int]:
        """How many live leases each of these sessions holds."""
        counts = dict.fromkeys(sessions, 0)
        after: Key | None = None
        while True:
            page = await list_leases(self._storage, self._clock, after=after, limit=PAGE_MAX)
            for record in page.records:
                if record.session in counts:
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
            revoked=tuple(map(_ref, done.revoked)),
            wiped=tuple(map(_ref, done.wiped)),
            missing=tuple(map(_ref, done.missing)),
        )


def _ref(record: LeaseRecord) -> LeaseRef:
    return LeaseRef(lease=record.lease, worker=record.worker, token=record.token)
