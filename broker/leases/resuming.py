"""Resume leases of an earlier session of the same worker, on whatever replica it has come back to.

The worker states what it holds; what it states is looked up, never believed. Each lease is checked again, moves to this
session, and is renewed; a lease whose token has another version comes with its value.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker.audit.entries import LeaseRotated, LeasesEnded, LeasesResumed
from broker.errors import BrokerError, NotFound
from broker.leases.answers import error_frame
from broker.leases.batch import Batch
from broker.leases.context import NotAllowed
from broker.leases.heads import Head
from broker.leases.held import Holder
from broker.leases.operation import Missing, Operation
from broker.leases.rotating import rotated_frame
from broker.leases.terms import ended, extended, next_terms
from storage.records import LeaseRecord, VersionRecord
from tokenbroker_client.wire import (
    ENCODER,
    FRAME_BYTES_MAX,
    GoneCode,
    GoneLease,
    LiveLease,
    Resumed,
    Rotated,
)

_ROTATED_BYTES_MAX: Final = FRAME_BYTES_MAX - 96 * 1024
"""Room for values in the answer: 1000 leases of 64 characters take less than the rest. More values follow as pushes."""


class Resume(Operation):
    """Take over the worker's live leases among those stated (lease id → version in hand)."""

    __slots__ = ("_gone", "_live", "_lost", "_reason", "_rotated", "holder", "id", "stated")

    gives = True

    def __init__(self, *, holder: Holder, stated: dict[str, int], request_id: int) -> None:
        super().__init__()
        self.holder = holder
        self.id = request_id
        self.stated = stated
        self._live: list[LeaseRecord] = []
        self._rotated: list[Rotated] = []
        self._lost: list[LeaseRecord] = []
        self._gone: list[GoneLease] = []
        self._reason = ""

    def touches(self) -> tuple[str, ...]:
        return tuple(self.stated)

    def decide(self, batch: Batch) -> None:
        if not self.fetched:
            raise Missing(leases=tuple(self.stated))
        self._live, self._rotated, self._lost, self._gone = [], [], [], []
        rows = {lease: self._newest(lease, batch) for lease in self.stated}
        self._load_heads(rows, batch)
        for lease, row in rows.items():
            if row is None or row.worker != self.holder.worker:
                self._gone.append(GoneLease(lease=lease, code=GoneCode.UNKNOWN))
            elif row.state != "live":
                self._gone.append(GoneLease(lease=lease, code=row.state))
            elif row.expires_at <= batch.now:
                self._gone.append(GoneLease(lease=lease, code=GoneCode.EXPIRED))
            else:
                self._resume(row, batch)
        self._write(batch)
        # Fetched rows serve one decision: after a lost compare-and-set they are read again.
        self.fetched = {}

    def _newest(self, lease: str, batch: Batch) -> LeaseRecord | None:
        """The row as fetched, or as an older session of this worker on this replica still holds it."""
        held = batch.context.holdings.by_lease.get(lease)
        row = self.fetched.get(lease)
        return row if held is None or (row is not None and row.rev > held.record.rev) else held.record

    def _load_heads(self, rows: dict[str, LeaseRecord | None], batch: Batch) -> None:
        known = batch.context.heads.known
        mine = {row.token for row in rows.values() if row is not None and row.worker == self.holder.worker}
        unknown = tuple(token for token in mine if token not in known)
        if unknown:
            raise Missing(heads=unknown)

    def _resume(self, row: LeaseRecord, batch: Batch) -> None:
        context, now = batch.context, batch.now
        try:
            grant, worker = context.authorise(self.holder, row.token, now)
            version = _leasable(context.heads.known[row.token])
        except (NotAllowed, NotFound) as error:
            self._reason = error.reason if isinstance(error, NotAllowed) else "no_current_version"
            retention_s = context.settings.retention_s
            self._lost.append(ended(row, state="revoked", reason=self._reason, now=now, retention_s=retention_s))
            self._gone.append(GoneLease(lease=row.lease, code=GoneCode.REVOKED))
            return
        if version.version != self.stated[row.lease]:
            value, encoding = batch.open(version, self.holder)
            head = context.heads.known[row.token]
            assert head is not None, "a leasable version has a head"
            self._rotated.append(rotated_frame(row.lease, head, version, value, encoding))
        terms = next_terms(row, grant=grant, worker=worker, now=now, ttl_s=row.ttl_s)
        record = extended(row, terms, grant=grant.id, version=version.version)
        self._live.append(msgspec.structs.replace(record, session=self.holder.session, instance=context.instance))

    def _write(self, batch: Batch) -> None:
        holder, now = self.holder, batch.now
        batch.updates += self._live + self._lost
        if self._live:
            leases = tuple(record.lease for record in self._live)
            batch.entries.append(LeasesResumed(at=now, actor=holder.actor, session=holder.session, leases=leases))
        batch.entries += [
            LeaseRotated(
                at=now,
                actor="system",
                lease=frame.lease,
                token=frame.token,
                version=frame.version,
                session=holder.session,
            )
            for frame in self._rotated
        ]
        if self._lost:
            lost = tuple(record.lease for record in self._lost)
            batch.entries.append(LeasesEnded(at=now, actor="system", state="revoked", reason=self._reason, leases=lost))

    def done(self, batch: Batch) -> None:
        holder, context = self.holder, batch.context
        for record in self._live + self._lost:
            held = context.holdings.by_lease.get(record.lease)
            if held is not None:
                context.drop(held)
        if holder.closed:
            return
        live = []
        for record in self._live:
            left_s = (record.expires_at - batch.now).total_seconds()
            context.hold(holder, record, None, mono=batch.mono, left_s=left_s)
            live.append(LiveLease(lease=record.lease, ttl_s=left_s))
        within, beyond = _fitting(self._rotated)
        holder.answer(
            self.id,
            ENCODER.encode(Resumed(id=self.id, live=tuple(live), rotated=tuple(within), gone=tuple(self._gone))),
        )
        for frame in beyond:
            holder.send(ENCODER.encode(frame))
        self._rotated = []

    def fail(self, error: BrokerError) -> None:
        self.holder.answer(self.id, error_frame(error, self.id))


def _leasable(head: Head | None) -> VersionRecord:
    version = None if head is None else head.leasable
    if version is None:
        raise NotFound
    return version


def _fitting(frames: list[Rotated]) -> tuple[list[Rotated], list[Rotated]]:
    """The frames that fit into the answer, and those that follow it."""
    room = _ROTATED_BYTES_MAX
    for index, frame in enumerate(frames):
        room -= len(ENCODER.encode(frame))
        if room < 0:
            return frames[:index], frames[index:]
    return frames, []
