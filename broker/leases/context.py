"""What every lease operation may use, fixed at start. Operations get nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from broker.errors import Denied
from broker.leases.answers import push_revoked
from broker.leases.heads import Heads
from broker.leases.held import Held, Holder, Holdings, Place, place_of
from broker.leases.pools.book import Pools
from broker.leases.settings import LeaseSettings
from broker.leases.wheel import Wheel
from broker.uses import Uses
from broker.vault.vault import Vault
from storage.port import PAGE_MAX, Storage
from storage.records import GrantRecord, KeyringRecord, LeaseRecord, WorkerRecord
from tokenbroker_client.wire import ReportEvent

if TYPE_CHECKING:
    from broker.authority.book import Book
    from broker.leases.issued.making import Issuing

NOT_COVERED = "no live grant covers this token for this worker; ask an operator for a grant"


class NotAllowed(Denied):
    """Denied, with a reason that is for the audit log and not for the worker."""

    def __init__(self, reason: str) -> None:
        super().__init__(NOT_COVERED)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The books, caches and indexes that leasing decides with."""

    instance: str
    workers: Book[WorkerRecord]
    keyrings: Book[KeyringRecord]
    storage: Storage
    heads: Heads
    pools: Pools
    vault: Vault
    holdings: Holdings
    wheel: Wheel
    settings: LeaseSettings
    uses: Uses
    issuing: Issuing
    reports: Counter[ReportEvent] = field(default_factory=Counter)
    """What workers of this replica reported of leases that they hold, since the start."""

    def authorise(self, holder: Holder, place: Place, now: datetime) -> tuple[GrantRecord, WorkerRecord]:
        """The grant that covers this token and stage for this worker now, and the worker. NotAllowed: there is none.

        Asked anew at every grant, renewal, resume and push: holding a lease is never authority.
        """
        worker = self.standing(holder, now)
        return self.covering(holder, place, now), worker

    def standing(self, holder: Holder, now: datetime) -> WorkerRecord:
        """The worker of a session that may go on at `now`. NotAllowed: it may lease nothing."""
        worker = self.workers.get((holder.worker,))
        if worker is None or worker.disabled:
            raise NotAllowed("worker_disabled")
        if worker.expires_at is not None and worker.expires_at <= now:
            raise NotAllowed("worker_expired")
        for key in worker.keys:
            if key.public_key == holder.public_key:
                break
        else:
            raise NotAllowed("key_removed")
        return worker

    def covering(self, holder: Holder, place: Place, now: datetime) -> GrantRecord:
        """The grant that covers this token and stage for this session's worker at `now`. NotAllowed: there is none."""
        token, stage = place
        decision = holder.entitlements.decide(token, now, holder.source, previous=stage == "previous")
        if decision.grant is None:
            raise NotAllowed(str(decision.refusal))
        return decision.grant

    def hold(self, holder: Holder, record: LeaseRecord, before: Held | None, *, mono: float, left_s: float) -> Held:
        """Keep in memory what is durable: this session holds this lease; schedule its renewal at half of what is left,
        or its end where it cannot be renewed.

        before: what this session held of this token and stage until now: this lease, another one, or None. Unless it is
        this lease, the worker has the value of `record.version`. left_s: seconds from `mono` until it expires.
        """
        renew_at = mono + (left_s / 2 if record.expires_at < record.max_expires_at else left_s)
        if before is not None and before.record.lease == record.lease:
            held = before
            held.record, held.expires, held.renew_at = record, mono + left_s, renew_at
        else:
            if before is not None:
                self.drop(before)
            held = Held(record=record, holder=holder, expires=mono + left_s, renew_at=renew_at, sent=record.version)
            self.holdings.add(held)
        self.wheel.set(held)
        self.uses.note(holder.actor, record.grant, record.token, mono)
        return held

    def drop(self, held: Held) -> None:
        """Hold this lease no longer, and never renew it."""
        self.wheel.clear(held)
        self.holdings.drop(held)
        if held.record.member:
            self.pools.stir(held.record.token)

    def drop_session(self, holder: Holder) -> None:
        """Its connection is gone: its leases run out, or are resumed by a later session."""
        for held in list(holder.leases.values()):
            self.drop(held)
        holder.revoking.clear()
        self.holdings.leave(holder)
        self.pools.left(holder.session)

    async def read_leases(self, leases: Sequence[str]) -> dict[str, LeaseRecord]:
        """The rows of these leases by id, those that exist. Raises what storage raises."""
        rows: dict[str, LeaseRecord] = {}
        for start in range(0, len(leases), PAGE_MAX):
            page = [(lease,) for lease in leases[start : start + PAGE_MAX]]
            rows.update((row.lease, row) for row in (await self.storage.get_many(LeaseRecord, page)).values())
        return rows

    def reconcile(self, lease: str, row: LeaseRecord | None) -> None:
        """Bring a held lease in line with its row: dropped when it ended or is another, and pushed when revoked."""
        held = self.holdings.by_lease.get(lease)
        if held is None:
            return
        if row is not None and row.state == "live" and _names(row) == _names(held.record):
            held.record = max(held.record, row, key=lambda record: record.rev)
            return
        self.drop(held)
        if row is not None and row.state == "revoked":
            push_revoked(held.holder, [row], row.reason)


def _names(record: LeaseRecord) -> tuple[str, Place, str]:
    """Whose lease of what it is: by this it is found here, so while it is held this stays."""
    return (record.session, place_of(record), record.member)
