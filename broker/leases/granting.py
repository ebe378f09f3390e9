"""Grant a lease: the hot path. One token to one connected worker, durable before the value leaves."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from broker.audit.entries import LeaseGranted
from broker.errors import BrokerError, Gone, NotFound, RateLimited
from broker.leases.answers import error_frame
from broker.leases.batch import Batch
from broker.leases.context import NotAllowed
from broker.leases.heads import Head
from broker.leases.held import Holder
from broker.leases.operation import Missing, Operation
from broker.leases.terms import ceiling, extended
from storage.records import LeaseRecord, VersionRecord
from tokenbroker_client.wire import ENCODER, Granted

_UNKNOWN: Final = Head.__new__(Head, None, None)  # type: ignore[arg-type]  # a mark that is no real head


class Grant(Operation):
    """A worker asks for a token. A token that its session already leases gives the same lease, renewed."""

    __slots__ = ("_content_type", "_encoding", "_held", "_record", "_ttl_s", "_value", "holder", "id", "token", "ttl_s")

    gives = True

    def __init__(self, *, holder: Holder, request_id: int, token: str, ttl_s: float | None) -> None:
        super().__init__()
        self.holder = holder
        self.id = request_id
        self.token = token
        self.ttl_s = ttl_s

    def touches(self) -> tuple[str, ...]:
        held = self.holder.leases.get(self.token)
        return (held.record.lease,) if held is not None else (f"{self.holder.session} {self.token}",)

    def decide(self, batch: Batch) -> None:
        holder, context, now = self.holder, batch.context, batch.now
        if holder.closed:
            raise Gone("the session is closed")
        grant, worker = context.authorise(holder, self.token, now)
        version = self._version(batch)
        self._value, self._encoding = batch.open(version, holder)
        self._content_type = version.content_type
        ttl_s = min(self.ttl_s or grant.ttl_s, grant.max_ttl_s)
        held = holder.leases.get(self.token)
        if held is not None and held.record.max_expires_at > now:
            record = extended(held.record, grant=grant, worker=worker, now=now, ttl_s=ttl_s, version=version.version)
            batch.updates.append(record)
        else:
            held = None
            if len(holder.leases) >= context.settings.leases_per_session_max:
                raise RateLimited(
                    f"a session holds at most {context.settings.leases_per_session_max} leases; release some",
                    retry_after_s=ttl_s,
                )
            record = self._new(batch, version, ttl_s, grant.id, ceiling(grant, worker, now))
            batch.inserts.append(record)
        self._held, self._record = held, record
        self._ttl_s = (record.expires_at - now).total_seconds()
        batch.entries.append(
            LeaseGranted(
                at=now,
                actor=holder.actor,
                lease=record.lease,
                token=self.token,
                version=record.version,
                session=holder.session,
                grant=grant.id,
                ttl_s=self._ttl_s,
            )
        )

    def _version(self, batch: Batch) -> VersionRecord:
        head = batch.context.heads.known.get(self.token, _UNKNOWN)
        if head is _UNKNOWN:
            raise Missing(heads=(self.token,))
        if head is None:
            raise NotAllowed("no_such_token")
        version = head.leasable
        if version is None:
            raise NotFound("the token is disabled or has no current version; ask its owner")
        return version

    def _new(self, batch: Batch, version: VersionRecord, ttl_s: float, grant: str, end: datetime) -> LeaseRecord:
        expires_at = min(batch.now + timedelta(seconds=ttl_s), end)
        return LeaseRecord(
            lease=next(batch.ids),
            token=self.token,
            version=version.version,
            worker=self.holder.worker,
            session=self.holder.session,
            instance=batch.context.instance,
            grant=grant,
            state="live",
            ttl_s=ttl_s,
            granted_at=batch.now,
            expires_at=expires_at,
            max_expires_at=end,
            due_at=expires_at,
        )

    def done(self, batch: Batch) -> None:
        holder, record = self.holder, self._record
        if holder.closed:
            return
        batch.context.hold(holder, record, self._held, mono=batch.mono, now=batch.now)
        holder.answer(
            self.id,
            ENCODER.encode(
                Granted(
                    id=self.id,
                    lease=record.lease,
                    token=self.token,
                    version=record.version,
                    value=self._value,
                    encoding=self._encoding,
                    content_type=self._content_type,
                    ttl_s=self._ttl_s,
                    max_ttl_s=(record.max_expires_at - batch.now).total_seconds(),
                    expires_at=record.expires_at.timestamp(),
                )
            ),
        )
        self._value = ""

    def fail(self, error: BrokerError) -> None:
        self.holder.answer(self.id, error_frame(error, self.id))
