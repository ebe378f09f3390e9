"""Resume leases of an earlier session of the same worker, on whatever replica it has come back to.

The worker states what it holds; what it states is looked up, never believed. Each lease is checked again, moves to this
session, and is renewed; a lease whose token has another version comes with its value. A session holds a token
and stage once, so of two leases of one the later in the list ends.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker.audit.entries import LeaseRotated, LeasesEnded, LeasesResumed
from broker.errors import BrokerError, Gone, NotFound, RateLimited
from broker.leases.answers import error_frame
from broker.leases.batch import Batch
from broker.leases.context import NotAllowed
from broker.leases.heads import Head
from broker.leases.held import Holder, Place, place_of
from broker.leases.issued.rows import ISSUED
from broker.leases.operation import Missing, Operation
from broker.leases.pools.following import followed, tokens_of, why_ended
from broker.leases.rotating import rotated_frame
from broker.leases.terms import ended, extended, next_terms
from broker.leases.versions import given
from storage.records import LeaseRecord, VersionRecord
from storage.records.leases import LeaseStage, LeaseState
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

    __slots__ = ("_gone", "_live", "_over", "_rotated", "_unreadable", "holder", "id", "stated")

    gives = True

    def __init__(self, *, holder: Holder, stated: dict[str, int], request_id: int) -> None:
        super().__init__(line=holder.worker, leases_named=len(stated))
        self.holder = holder
        self.id = request_id
        self.stated = stated
        self._live: dict[Place, LeaseRecord] = {}
        self._rotated: list[Rotated] = []
        self._over: list[LeaseRecord] = []
        self._gone: list[GoneLease] = []
        self._unreadable: set[str] = set()

    def touches(self) -> tuple[str, ...]:
        # Also the tokens, as far as they are known: a grant in the same batch must not make a second lease of one.
        session = self.holder.session
        tokens = (f"{session} {row.token} {row.stage}" for row in self.fetched.values() if row is not None)
        return (*self.stated, *tokens)

    def goes_on_without(self, token: str) -> bool:
        self._unreadable.add(token)
        return True

    def _cannot_read(self, row: LeaseRecord) -> bool:
        return not self._unreadable.isdisjoint(tokens_of(row))

    def decide(self, batch: Batch) -> None:
        if self.holder.closed:
            raise Gone("the session is closed")
        if not self.fetched:
            raise Missing(leases=tuple(self.stated))
        self._live, self._rotated, self._over, self._gone = {}, [], [], []
        rows = {lease: self._newest(lease, batch) for lease in self.stated}
        self._load_heads(rows, batch)
        for lease, row in rows.items():
            if row is None or row.worker != self.holder.worker or self._cannot_read(row):
                self._gone.append(GoneLease(lease=lease, code=GoneCode.UNKNOWN))
            elif row.state != "live":
                self._gone.append(GoneLease(lease=lease, code=row.state))
            elif row.expires_at <= batch.now:
                self._gone.append(GoneLease(lease=lease, code=GoneCode.EXPIRED))
            else:
                self._resume(row, batch)
        self._check_room(batch)
        self._write(batch)
        # Fetched rows serve one decision: after a lost compare-and-set they are read again.
        self.fetched = {}

    def _check_room(self, batch: Batch) -> None:
        most = batch.context.settings.leases_per_session_max
        if len(self.holder.leases.keys() | self._live.keys()) > most:
            raise RateLimited(f"a session holds at most {most} leases; resume fewer", retry_after_s=1.0)

    def _newest(self, lease: str, batch: Batch) -> LeaseRecord | None:
        """The row as fetched, or as an older session of this worker on this replica still holds it."""
        held = batch.context.holdings.by_lease.get(lease)
        row = self.fetched.get(lease)
        return row if held is None or (row is not None and row.rev > held.record.rev) else held.record

    def _load_heads(self, rows: dict[str, LeaseRecord | None], batch: Batch) -> None:
        known = batch.context.heads.known
        mine = [row for row in rows.values() if row is not None and row.worker == self.holder.worker]
        tokens = {token for row in mine for token in tokens_of(row)}
        unknown = tuple(token for token in tokens if token not in known and token not in self._unreadable)
        if unknown:
            raise Missing(heads=unknown)

    def _resume(self, row: LeaseRecord, batch: Batch) -> None:
        context, now, place = batch.context, batch.now, place_of(row)
        held = self.holder.leases.get(place)
        if place in self._live or (held is not None and held.record.lease != row.lease):
            self._end(batch, row, "released", "the session has another lease of the token")
            return
        try:
            grant, worker = context.authorise(self.holder, place, now)
            head, version = _leasable(followed(context, row), row.stage, row.worker)
        except NotAllowed as error:
            self._end(batch, row, "revoked", error.reason)
            return
        except NotFound:
            self._end(batch, row, "revoked", why_ended(row))
            return
        behind = version.version != self.stated[row.lease]
        if behind and version is ISSUED:
            self._end(batch, row, "released", "the worker has not the value that was made for it")
            return
        if behind:
            try:
                opened = batch.open(version, self.holder)
            except BrokerError:
                # This item cannot be served now; its row stays, and the worker asks for the token anew.
                self._gone.append(GoneLease(lease=row.lease, code=GoneCode.UNKNOWN))
                return
            self._rotated.append(rotated_frame(row, self.stated[row.lease], head, version, opened))
        terms = next_terms(row, grant=grant, worker=worker, now=now, ttl_s=row.ttl_s)
        record = given(extended(row, terms, grant=grant.id), version.version, now=now, pushed=behind)
        self._live[place] = msgspec.structs.replace(record, session=self.holder.session, instance=context.instance)

    def _end(self, batch: Batch, row: LeaseRecord, state: LeaseState, reason: str) -> None:
        retention_s = batch.context.settings.retention_s
        self._over.append(ended(row, state=state, reason=reason, now=batch.now, retention_s=retention_s))
        self._gone.append(GoneLease(lease=row.lease, code=state))

    def _write(self, batch: Batch) -> None:
        holder, now = self.holder, batch.now
        batch.updates += [*self._live.values(), *self._over]
        if self._live:
            leases = tuple(record.lease for record in self._live.values())
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
        batch.entries += [
            LeasesEnded(at=now, actor="system", state=row.state, reason=row.reason, leases=(row.lease,))
            for row in self._over
        ]

    def done(self, batch: Batch) -> None:
        holder, context = self.holder, batch.context
        for record in (*self._live.values(), *self._over):
            held = context.holdings.by_lease.get(record.lease)
            if held is not None:
                context.drop(held)
        if holder.closed:
            return
        live = []
        for record in self._live.values():
            left_s = (record.expires_at - batch.now).total_seconds()
            context.hold(holder, record, holder.leases.get(place_of(record)), mono=batch.mono, left_s=left_s)
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


def _leasable(head: Head | None, stage: LeaseStage, worker: str) -> tuple[Head, VersionRecord]:
    version = None if head is None else head.leasable(stage, worker)
    if head is None or version is None:
        raise NotFound
    return head, version


def _fitting(frames: list[Rotated]) -> tuple[list[Rotated], list[Rotated]]:
    """The frames that fit into the answer, and those that follow it."""
    room = _ROTATED_BYTES_MAX
    for index, frame in enumerate(frames):
        room -= len(ENCODER.encode(frame))
        if room < 0:
            return frames[:index], frames[index:]
    return frames, []
