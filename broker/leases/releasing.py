"""Release leases: the worker gives them back. Item by item; what is not held is listed as gone."""

from __future__ import annotations

from broker.audit.entries import LeasesEnded
from broker.errors import BrokerError
from broker.leases.answers import error_frame
from broker.leases.batch import Batch
from broker.leases.held import Held, Holder
from broker.leases.operation import Operation
from broker.leases.terms import ended
from storage.records import LeaseRecord
from tokenbroker_client.wire import ENCODER, GoneCode, GoneLease, Released


class Release(Operation):
    """End what this session holds among `leases`, in state "released"."""

    __slots__ = ("_ended", "holder", "id", "leases")

    def __init__(self, *, holder: Holder, leases: tuple[str, ...], request_id: int) -> None:
        super().__init__(line=holder.worker, leases_named=len(leases))
        self.holder = holder
        self.id = request_id
        self.leases = leases
        self._ended: list[tuple[Held, LeaseRecord]] = []

    def touches(self) -> tuple[str, ...]:
        return self.leases

    def decide(self, batch: Batch) -> None:
        by_lease = batch.context.holdings.by_lease
        retention_s = batch.context.settings.retention_s
        found = [by_lease.get(lease) for lease in dict.fromkeys(self.leases)]
        self._ended = [
            (held, ended(held.record, state="released", reason="", now=batch.now, retention_s=retention_s))
            for held in found
            if held is not None and held.holder is self.holder and held.record.expires_at > batch.now
        ]
        if self._ended:
            batch.updates += [record for _, record in self._ended]
            leases = tuple(record.lease for _, record in self._ended)
            batch.entries.append(
                LeasesEnded(at=batch.now, actor=self.holder.actor, state="released", reason="", leases=leases)
            )

    def done(self, batch: Batch) -> None:
        gone_before = set(self.leases)
        for held, record in self._ended:
            batch.context.drop(held)
            gone_before.discard(record.lease)
            self.holder.remember_gone(record.lease, GoneCode.RELEASED)
        self.holder.answer(
            self.id,
            ENCODER.encode(
                Released(
                    id=self.id,
                    leases=tuple(record.lease for _, record in self._ended),
                    gone=tuple(
                        GoneLease(lease=lease, code=self.holder.why_gone(lease))
                        for lease in dict.fromkeys(self.leases)
                        if lease in gone_before
                    ),
                )
            ),
        )

    def fail(self, error: BrokerError) -> None:
        self.holder.answer(self.id, error_frame(error, self.id))
