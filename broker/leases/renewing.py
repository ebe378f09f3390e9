"""Renew leases of one session: because half their time is over, or because the worker asks.

Worker, grant and token are checked again for each. A lease that may no longer be is revoked in the same commit. One at
its ceiling, and one whose token cannot be read, is left to run out. Batches answer item by item.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.audit.entries import LeasesEnded, LeasesRenewed
from broker.errors import BrokerError, NotFound
from broker.leases.answers import error_frame, push_revoked
from broker.leases.batch import Batch
from broker.leases.context import Context, NotAllowed
from broker.leases.held import Held, Holder, place_of
from broker.leases.operation import Missing, Operation
from broker.leases.pools.following import followed, tokens_of, why_ended
from broker.leases.terms import WORTH_RENEWING_S, ended, extended, next_terms
from storage.records import LeaseRecord
from tokenbroker_client.wire import ENCODER, GoneCode, GoneLease, LiveLease, Renewed


class Renewal(Operation):
    """Extend what this session holds among `leases`. request_id None: the broker's own duty, pushed without one."""

    __slots__ = ("_extended", "_failed", "_kept", "_lost", "_reason", "_unreadable", "holder", "id", "leases")

    gives = True

    def __init__(
        self,
        *,
        holder: Holder,
        leases: tuple[str, ...],
        request_id: int | None = None,
        failed: Callable[[Renewal], None] | None = None,
    ) -> None:
        """failed: told when a push could not be made; a request is answered instead."""
        super().__init__(line=holder.worker, leases_named=len(leases))
        self._failed = failed
        self.holder = holder
        self.id = request_id
        self.leases = leases
        self._extended: list[tuple[Held, LeaseRecord]] = []
        self._lost: list[tuple[Held, LeaseRecord]] = []
        self._kept: list[Held] = []
        self._unreadable: set[str] = set()
        self._reason = ""

    def touches(self) -> tuple[str, ...]:
        return self.leases

    def decide(self, batch: Batch) -> None:
        self._extended, self._lost, self._kept = [], [], []
        context, now = batch.context, batch.now
        for held in self._held(batch):
            record = held.record
            try:
                grant, worker = context.authorise(self.holder, place_of(record), now)
                self._check_token(record, context)
            except (NotAllowed, NotFound) as error:
                self._reason = error.reason if isinstance(error, NotAllowed) else why_ended(record)
                self._lost.append((held, self._revoked(record, batch)))
                continue
            terms = next_terms(record, grant=grant, worker=worker, now=now, ttl_s=record.ttl_s)
            gained_s = (terms.expires_at - record.expires_at).total_seconds()
            if gained_s > WORTH_RENEWING_S and not self._cannot_read(record):
                self._extended.append((held, extended(record, terms, grant=grant.id)))
            else:
                self._kept.append(held)
        self._write(batch)

    def _check_token(self, record: LeaseRecord, context: Context) -> None:
        """NotFound: it may be leased to nobody now. One that cannot be read passes, and is not extended either."""
        if self._cannot_read(record):
            return
        try:
            head = followed(context, record)
        except Missing:
            # All at once, so that one read serves all that this session holds.
            names = {name for held in self.holder.leases.values() for name in tokens_of(held.record)}
            raise Missing(heads=tuple(names - context.heads.known.keys() - self._unreadable)) from None
        if head is None or head.leasable(record.stage, self.holder.worker) is None:
            raise NotFound

    def _cannot_read(self, record: LeaseRecord) -> bool:
        return bool(self._unreadable) and not self._unreadable.isdisjoint(tokens_of(record))

    def goes_on_without(self, token: str) -> bool:
        self._unreadable.add(token)
        return True

    def _held(self, batch: Batch) -> list[Held]:
        """What this session holds of the leases, and only that: an id is never authority."""
        by_lease = batch.context.holdings.by_lease
        found = [by_lease.get(lease) for lease in dict.fromkeys(self.leases)]
        return [
            held
            for held in found
            if held is not None and held.holder is self.holder and held.record.expires_at > batch.now
        ]

    def _revoked(self, record: LeaseRecord, batch: Batch) -> LeaseRecord:
        retention_s = batch.context.settings.retention_s
        return ended(record, state="revoked", reason=self._reason, now=batch.now, retention_s=retention_s)

    def _write(self, batch: Batch) -> None:
        batch.updates += [record for _, record in self._extended]
        batch.updates += [record for _, record in self._lost]
        if self._extended:
            renewed = tuple(record.lease for _, record in self._extended)
            actor = "system" if self.id is None else self.holder.actor
            batch.entries.append(LeasesRenewed(at=batch.now, actor=actor, session=self.holder.session, leases=renewed))
        if self._lost:
            lost = tuple(record.lease for _, record in self._lost)
            batch.entries.append(
                LeasesEnded(at=batch.now, actor="system", state="revoked", reason=self._reason, leases=lost)
            )

    def done(self, batch: Batch) -> None:
        holder = self.holder
        for held, _ in self._lost:
            batch.context.drop(held)
        if holder.closed:
            return
        live: list[LiveLease] = []
        for held in self._kept:
            # It was taken out of the wheel to be renewed; now it only runs out.
            held.renew_at = held.expires
            batch.context.wheel.set(held)
        for held, record in self._extended:
            left_s = (record.expires_at - batch.now).total_seconds()
            batch.context.hold(holder, record, held, mono=batch.mono, left_s=left_s)
            live.append(LiveLease(lease=record.lease, ttl_s=left_s))
        if self._lost:
            push_revoked(holder, [record for _, record in self._lost], self._reason)
        if self.id is not None:
            live += [
                LiveLease(lease=held.record.lease, ttl_s=(held.record.expires_at - batch.now).total_seconds())
                for held in self._kept
            ]
            holder.answer(self.id, ENCODER.encode(Renewed(id=self.id, leases=tuple(live), gone=self._gone(live))))
        elif live:
            holder.send(ENCODER.encode(Renewed(leases=tuple(live))))

    def _gone(self, live: list[LiveLease]) -> tuple[GoneLease, ...]:
        alive = {lease.lease for lease in live}
        lost = {record.lease for _, record in self._lost}
        return tuple(
            GoneLease(lease=lease, code=GoneCode.REVOKED if lease in lost else self.holder.why_gone(lease))
            for lease in dict.fromkeys(self.leases)
            if lease not in alive
        )

    def fail(self, error: BrokerError) -> None:
        if self.id is not None:
            self.holder.answer(self.id, error_frame(error, self.id))
        elif self._failed is not None:
            self._failed(self)
