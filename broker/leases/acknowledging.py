"""Record what a worker did with a push: applied or failed a version, wiped a revoked value.

An acknowledgement is often the last thing a worker sends, so it counts also when the session is gone by the time it is
looked at. It changes only the row of a lease that this very session holds or held.
"""

from __future__ import annotations

import msgspec

from broker.audit.entries import LeaseAcknowledged
from broker.errors import BrokerError
from broker.leases.batch import Batch
from broker.leases.held import Held, Holder
from broker.leases.operation import Missing, Operation
from broker.leases.versions import applied, failed
from storage.port import Amended
from storage.records import LeaseRecord
from tokenbroker_client.wire import AckStatus


class Acknowledge(Operation):
    """An `ack` frame. One for a lease that is not this session's, or that says nothing new, changes nothing."""

    __slots__ = ("_held", "_record", "detail", "holder", "lease", "status", "version")

    def __init__(self, *, holder: Holder, lease: str, status: AckStatus, version: int, detail: str) -> None:
        super().__init__(line=holder.worker)
        self.holder = holder
        self.lease = lease
        self.status = status
        self.version = version
        self.detail = detail
        self._held: Held | None = None
        self._record: LeaseRecord | None = None

    def touches(self) -> tuple[str, ...]:
        return (self.lease,)

    def decide(self, batch: Batch) -> None:
        self._held = self._record = None
        row = self._row(batch)
        if row is None or row.session != self.holder.session:
            return
        after = self._after(row, batch)
        if after is None:
            return
        self._record = after
        batch.amended.append(Amended(row, after))
        batch.entries.append(
            LeaseAcknowledged(
                at=batch.now, actor=self.holder.actor, lease=self.lease, status=self.status, version=self.version
            )
        )
        if self.status is AckStatus.WIPED:
            batch.announce.append((LeaseRecord.table.name, after.key))

    def _row(self, batch: Batch) -> LeaseRecord | None:
        """The lease as this session holds it, as it was revoked, or as storage has it."""
        held = batch.context.holdings.by_lease.get(self.lease)
        if held is not None:
            self._held = held
            return held.record
        if self.attempts == 0 and self.lease in self.holder.revoking:
            return self.holder.revoking[self.lease]
        if self.lease not in self.fetched:
            raise Missing(leases=(self.lease,))
        row = self.fetched[self.lease]
        # Fetched rows serve one decision: after a lost compare-and-set they are read again.
        self.fetched = {}
        return row

    def _after(self, row: LeaseRecord, batch: Batch) -> LeaseRecord | None:
        """The row with what the worker says; None: it says nothing that is new and possible."""
        if self.status is AckStatus.WIPED:
            if row.state != "revoked" or row.wiped_at is not None:
                return None
            return msgspec.structs.replace(row, rev=row.rev + 1, wiped_at=batch.now)
        if self.status is AckStatus.APPLIED:
            return applied(row, self.version, now=batch.now)
        return failed(row, self.version, self.detail, now=batch.now)

    def done(self, batch: Batch) -> None:
        self.holder.acknowledged()
        if self._record is None:
            return
        if self._held is not None:
            self._held.record = self._record
        elif self._record.wiped_at is not None:
            self.holder.revoking.pop(self.lease, None)
        elif self.lease in self.holder.revoking:
            self.holder.revoking[self.lease] = self._record

    def fail(self, error: BrokerError) -> None:
        """An acknowledgement has no answer. One that was lost shows as missing, which is the safe side."""
        self.holder.acknowledged()
