"""Push the version that a lease follows, the current or the previous one of its token, to the session that has it.

Authority is checked again first; the push is on record before the value leaves. A token that may no longer be leased
(disabled, no such version) has its leases revoked instead.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.audit.entries import LeaseRotated, LeasesEnded, LeasesRenewed
from broker.errors import BrokerError, Unavailable
from broker.leases.answers import push_revoked
from broker.leases.batch import Batch, Opened
from broker.leases.context import NotAllowed
from broker.leases.heads import Head
from broker.leases.held import Held, place_of
from broker.leases.operation import Operation
from broker.leases.pools.following import followed, why_ended
from broker.leases.terms import cut, ended
from broker.leases.versions import given
from storage.port import Amended
from storage.records import LeaseRecord, VersionRecord
from tokenbroker_client.wire import ENCODER, LiveLease, Renewed, Rotated


def rotated_frame(record: LeaseRecord, has: int, head: Head, version: VersionRecord, opened: Opened) -> Rotated:
    """What a worker is told of another version, who has version `has`.

    How long that works is known only where the lease follows the current version and that one is still in use.
    """
    token, (value, encoding) = head.token, opened
    known = record.stage == "current" and has in (token.current, token.previous, token.rollout)
    return Rotated(
        lease=record.lease,
        token=record.token,
        version=version.version,
        value=value,
        encoding=encoding,
        content_type=version.content_type,
        previous_valid_s=float(token.previous_valid_s) if known else 0.0,
    )


class Recheck(Operation):
    """Bring one held lease in line with its token and its authority.

    Push another version, cut it to the time that its authority lasts, revoke it, or do nothing.
    """

    __slots__ = ("_cut", "_failed", "_frame", "_record", "_values", "held")

    def __init__(self, held: Held, *, failed: Callable[[Recheck], None], values: bool = True) -> None:
        """failed: told when it could not be done now; the lease runs on with the version it has.

        values: False when nobody knows whether what authorises the lease is true; then it may end, and get no value.
        """
        super().__init__()
        self._failed = failed
        self._values = values
        self.held = held
        self._record: LeaseRecord | None = None
        self._frame: Rotated | None = None
        self._cut = False

    def touches(self) -> tuple[str, ...]:
        return (self.held.record.lease,)

    def decide(self, batch: Batch) -> None:
        self._record = self._frame = None
        self._cut = False
        held, context, now = self.held, batch.context, batch.now
        record, holder = held.record, held.holder
        if holder.closed or context.holdings.by_lease.get(record.lease) is not held:
            return
        try:
            # First: a token whose row cannot be read must not keep a lost right alive.
            grant, worker = context.authorise(holder, place_of(record), now)
        except NotAllowed as error:
            self._revoke(batch, error.reason)
            return
        head = followed(context, record)
        version = None if head is None else head.leasable(record.stage, holder.worker)
        shorter = cut(record, grant=grant, worker=worker, now=now)
        if version is None:
            self._revoke(batch, why_ended(record))
            return
        if version.version != held.sent:
            if batch.trouble or not self._values:
                raise Unavailable(batch.trouble or "stored rows are under suspicion")
            if holder.congested:
                raise Unavailable("the worker does not read what it was sent before")
            assert head is not None, "a leasable version has a head"
            self._rotate(batch, shorter or record, head, version)
        elif shorter is not None:
            self._record = shorter
            batch.updates.append(shorter)
        self._cut = shorter is not None
        if self._cut:
            batch.entries.append(LeasesRenewed(at=now, actor="system", session=holder.session, leases=(record.lease,)))

    def _rotate(self, batch: Batch, record: LeaseRecord, head: Head, version: VersionRecord) -> None:
        """record: the lease, cut already if it has to be."""
        holder = self.held.holder
        self._frame = rotated_frame(record, self.held.sent, head, version, batch.open(version, holder))
        before = self.held.record
        self._record = given(record, version.version, now=batch.now, pushed=True, rev=before.rev + 1)
        batch.amended.append(Amended(before, self._record))
        batch.entries.append(
            LeaseRotated(
                at=batch.now,
                actor="system",
                lease=record.lease,
                token=record.token,
                version=version.version,
                session=holder.session,
            )
        )

    def _revoke(self, batch: Batch, reason: str) -> None:
        record = self.held.record
        retention_s = batch.context.settings.retention_s
        self._record = ended(record, state="revoked", reason=reason, now=batch.now, retention_s=retention_s)
        batch.updates.append(self._record)
        batch.entries.append(
            LeasesEnded(at=batch.now, actor="system", state="revoked", reason=reason, leases=(record.lease,))
        )

    def done(self, batch: Batch) -> None:
        held, record = self.held, self._record
        if record is None:
            return
        if self._cut:
            left_s = (record.expires_at - batch.now).total_seconds()
            batch.context.hold(held.holder, record, held, mono=batch.mono, left_s=left_s)
            held.holder.send(ENCODER.encode(Renewed(leases=(LiveLease(lease=record.lease, ttl_s=left_s),))))
        if self._frame is not None:
            held.record = record
            held.sent = record.version
            held.holder.send(ENCODER.encode(self._frame))
            self._frame = None
        elif not self._cut:
            batch.context.drop(held)
            push_revoked(held.holder, [record], record.reason)

    def fail(self, error: BrokerError) -> None:
        self._failed(self)
