"""End leases that storage found: revoked by an operator, or expired. Held here, held elsewhere, or held by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from broker.audit.entries import LeasesEnded
from broker.errors import BrokerError
from broker.leases.answers import push_revoked
from broker.leases.batch import Batch
from broker.leases.held import Holder
from broker.leases.operation import Missing, Operation
from broker.leases.terms import ended
from storage.records import LeaseRecord
from tokenbroker_client.wire import GoneCode


class End(Operation):
    """End those leases that are still live (for "expired": whose time is over). `ended` gives their rows."""

    __slots__ = ("_after", "actor", "ended", "leases", "reason", "state")

    def __init__(
        self, *, rows: Sequence[LeaseRecord], state: Literal["revoked", "expired"], reason: str, actor: str
    ) -> None:
        """rows: as storage had them a moment ago; if one has changed since, they are read again."""
        super().__init__(leases_named=len(rows))
        self.leases = tuple(row.lease for row in rows)
        self.fetched = {row.lease: row for row in rows}
        self.state = state
        self.reason = reason
        self.actor = actor
        self.ended: asyncio.Future[list[LeaseRecord]] = asyncio.get_running_loop().create_future()
        self._after: list[LeaseRecord] = []

    def touches(self) -> tuple[str, ...]:
        return self.leases

    def decide(self, batch: Batch) -> None:
        if not self.fetched:
            raise Missing(leases=self.leases)
        by_lease, now = batch.context.holdings.by_lease, batch.now
        self._after = []
        for lease in self.leases:
            row, held = self.fetched.get(lease), by_lease.get(lease)
            if held is not None and (row is None or held.record.rev > row.rev):
                row = held.record
            if row is None or row.state != "live" or (self.state == "expired" and row.expires_at > now):
                continue
            retention_s = batch.context.settings.retention_s
            self._after.append(ended(row, state=self.state, reason=self.reason, now=now, retention_s=retention_s))
        if self._after:
            leases = tuple(record.lease for record in self._after)
            batch.updates += self._after
            batch.entries.append(
                LeasesEnded(at=now, actor=self.actor, state=self.state, reason=self.reason, leases=leases)
            )
            if self.state == "revoked":
                batch.announce += [(LeaseRecord.table.name, record.key) for record in self._after]
        # Fetched rows serve one decision: after a lost compare-and-set they are read again.
        self.fetched = {}

    def done(self, batch: Batch) -> None:
        told: dict[Holder, list[LeaseRecord]] = {}
        for record in self._after:
            held = batch.context.holdings.by_lease.get(record.lease)
            if held is not None:
                batch.context.drop(held)
                told.setdefault(held.holder, []).append(record)
        for holder, records in told.items():
            self._tell(holder, records)
        if not self.ended.done():
            self.ended.set_result(self._after)

    def _tell(self, holder: Holder, records: list[LeaseRecord]) -> None:
        if self.state == "revoked":
            push_revoked(holder, records, self.reason)
        else:
            for record in records:
                holder.remember_gone(record.lease, GoneCode.EXPIRED)

    def fail(self, error: BrokerError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
