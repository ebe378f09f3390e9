"""Record what a worker did with a push: applied or failed a version, wiped a revoked value."""

from __future__ import annotations

import msgspec

from broker.audit.entries import LeaseAcknowledged
from broker.errors import BrokerError
from broker.leases.batch import Batch
from broker.leases.held import Held, Holder
from broker.leases.operation import Operation
from storage.records import LeaseRecord
from tokenbroker_client.wire import AckStatus


class Acknowledge(Operation):
    """An `ack` frame. One for a lease that is not this session's, or that says nothing new, changes nothing."""

    __slots__ = ("_held", "_record", "detail", "holder", "lease", "status", "version")

    def __init__(self, *, holder: Holder, lease: str, status: AckStatus, version: int, detail: str) -> None:
        super().__init__()
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
        if self.status is AckStatus.WIPED:
            before = self.holder.revoking.get(self.lease)
            if before is None:
                return
            record = msgspec.structs.replace(before, rev=before.rev + 1, wiped_at=batch.now)
            batch.announce.append((LeaseRecord.table.name, record.key))
        else:
            held = batch.context.holdings.by_lease.get(self.lease)
            if held is None or held.holder is not self.holder or not 0 < self.version <= held.record.version:
                return
            applied = self.status is AckStatus.APPLIED
            acked_version = max(held.record.acked_version, self.version if applied else 0)
            ack_failed = "" if applied else self.detail or "failed"
            if (acked_version, ack_failed) == (held.record.acked_version, held.record.ack_failed):
                return
            self._held = held
            record = msgspec.structs.replace(
                held.record, rev=held.record.rev + 1, acked_version=acked_version, ack_failed=ack_failed
            )
        self._record = record
        batch.updates.append(record)
        batch.entries.append(
            LeaseAcknowledged(
                at=batch.now, actor=self.holder.actor, lease=self.lease, status=self.status, version=self.version
            )
        )

    def done(self, batch: Batch) -> None:
        if self._record is None:
            return
        if self._held is not None:
            self._held.record = self._record
        else:
            self.holder.revoking.pop(self.lease, None)

    def fail(self, error: BrokerError) -> None:
        """An acknowledgement has no answer. One that was lost shows as missing, which is the safe side."""
