"""Grant a lease: the hot path. One token to one connected worker, durable before the value leaves.

Requests of a session for the same token that meet in one batch get one lease, decided and written once (`Grant.join`).
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from broker.audit.entries import IssuedMade, LeaseGranted, LeasesEnded
from broker.errors import BrokerError, Gone, NotFound, RateLimited, Unavailable
from broker.leases.answers import error_frame
from broker.leases.batch import Batch, Opened
from broker.leases.context import NotAllowed
from broker.leases.heads import Head
from broker.leases.held import Holder, Place
from broker.leases.issued.making import Ask, Issuing
from broker.leases.issued.rows import ISSUED, as_version, live, to_end
from broker.leases.operation import InLine, Missing, Operation
from broker.leases.pools.following import followed
from broker.leases.pools.places import NO_SEAT
from broker.leases.pools.turn import Turn
from broker.leases.terms import Terms, capped, ceiling, ended, extended
from broker.leases.versions import given
from storage.port import Amended, Delete
from storage.records import (
    GrantRecord,
    IssuedRecord,
    LeaseRecord,
    SeatRecord,
    TicketRecord,
    VersionRecord,
    WorkerRecord,
)
from storage.records.leases import LeaseStage
from tokenbroker_client.wire import ENCODER, Granted, Stage

_STAGES: Final = {"current": Stage.CURRENT, "previous": Stage.PREVIOUS}
_Decided = tuple[LeaseRecord, Terms, VersionRecord, Opened, LeaseGranted]
"""What a request gets: the lease as it is to be, its times, the version that its value is of, the value, the entry."""

JOINED_CHARS_MAX: Final = 4096
"""Longest value that one batch gives to several requests. A longer one is given in one batch after the other, so that a
worker that does not read is refused before it is sent many of them."""

_UNKNOWN: Final = Head.__new__(Head, None, None, None)  # type: ignore[arg-type]  # a mark that is no real head


class Grant(Operation):
    """A worker asks for a token. What its session already leases gives the same lease, renewed."""

    __slots__ = (
        "_decided",
        "_made",
        "holder",
        "id",
        "place",
        "stage",
        "token",
        "ttl_s",
        "turn",
        "wait_s",
    )

    gives = True

    def __init__(  # noqa: PLR0917 - one is made for each request, and keywords would cost a dict
        self,
        holder: Holder,
        request_id: int,
        token: str,
        ttl_s: float | None,
        stage: LeaseStage = "current",
        wait_s: float = 0.0,
    ) -> None:
        """wait_s: how long it may stand in line for a place at a pool."""
        Operation.__init__(self, holder.worker)  # `super()` would make an object
        self.holder = holder
        self.id = request_id
        self.token = token
        self.stage = stage
        self.place: Place = (token, stage)
        self.ttl_s = ttl_s
        self.wait_s = wait_s
        self.turn: Turn | None = None
        self._made: IssuedRecord | None = None
        self._decided: _Decided | None = None  # until it is done, or decided anew: it has the value

    def touches(self) -> tuple[str, ...]:
        holder = self.holder
        held = holder.leases.get(self.place)
        own = held.record.lease if held is not None else f"{holder.session} {self.token} {self.stage}"
        if self.turn is None or self.turn.spot is None or self.turn.spot.over is None:
            return (own,)
        return (own, self.turn.spot.over.lease)

    def decide(self, batch: Batch) -> None:
        self._decided = None
        holder, now = self.holder, batch.now
        if holder.closed:
            raise Gone("the session is closed")
        grant, worker = batch.authorise(holder, self.place)
        if holder.behind and holder.choked:
            # A worker that asks for large values on many connections, and reads none, would fill the memory.
            raise RateLimited("read what was sent before asking for more", retry_after_s=0.5)
        version = self._leasable(batch)
        if version is ISSUED:
            version = self._own(batch, grant, worker)
        opened = batch.open(version, holder)
        held = holder.leases.get(self.place)
        if held is not None and now < held.record.expires_at:
            terms = batch.next_terms(held.record, grant, worker, self.ttl_s)
            record = given(extended(held.record, terms, grant=grant.id), version.version, now=now, pushed=False)
            batch.amended.append(Amended(held.record, record))
        else:
            batch.fresh[holder] = self._fresh(batch) + 1
            terms = batch.first_terms(grant, worker, self.ttl_s)
            if self._made is not None:
                terms = capped(terms, self._made.ends_at, now=now)
            record = self._new(batch, version.version, terms, grant.id)
            if self.turn is not None:
                record = self._seated(batch, self.turn, record)
            batch.inserts.append(record)
            if self._made is not None:
                self._keep(batch, self._made, terms)
        entry = LeaseGranted(
            at=now,
            actor=holder.actor,
            lease=record.lease,
            token=self.token,
            version=record.version,
            session=holder.session,
            grant=grant.id,
            ttl_s=terms.left_s,
            stage=self.stage,
            member=record.member,
        )
        batch.entries.append(entry)
        self._decided = (record, terms, version, opened, entry)

    def join(self, first: Operation | None, batch: Batch) -> bool:
        """Get what another request of this session got, a moment ago and for the same wish: its lease, as it is then.

        A second revision of it, decided at the same instant, would say the same as the first. That the value is handed
        out once more is an entry of its own.
        """
        if not isinstance(first, Grant) or first.holder is not self.holder:
            return False
        if first.place != self.place or first.ttl_s != self.ttl_s:
            return False
        if self.turn is not None or self._made is not None:
            return False  # it was given a place or a value of its own, which it is to use or to give back
        assert first._decided is not None, "it is in the batch"
        _, _, _, (value, _), entry = first._decided
        if len(value) > JOINED_CHARS_MAX:
            return False
        batch.authorise(self.holder, self.place)
        self._decided = first._decided
        batch.entries.append(entry)
        return True

    def _leasable(self, batch: Batch) -> VersionRecord:
        head = batch.context.heads.known.get(self.token, _UNKNOWN)
        if head is _UNKNOWN:
            raise Missing(heads=(self.token,))
        if head is None:
            raise NotAllowed("no_such_token")
        if head.token.kind == "pool":
            head = self._member(batch, head)
        version = head.leasable(self.stage, self.holder.worker)
        if version is None:
            raise NotFound(f"the token is disabled or has no {self.stage} version; ask its owner")
        return version

    def _member(self, batch: Batch, pool: Head) -> Head:
        """The member whose value the lease gets, or has. InLine: it is still to be given a place."""
        if pool.token.disabled or self.stage != "current":
            raise NotFound(f"the token is disabled or has no {self.stage} version; ask its owner")
        held = self.holder.leases.get(self.place)
        if held is not None and batch.now < held.record.expires_at:
            head = followed(batch.context, held.record)
            if head is None:
                raise Unavailable("the value that this session leases is being taken back; ask again")
            return head
        spot = None if self.turn is None else self.turn.take(tries=self.attempts)
        head = None if spot is None else batch.context.heads.known.get(spot.member)
        if head is None:
            raise InLine(self)
        return head

    def _seated(self, batch: Batch, turn: Turn, record: LeaseRecord) -> LeaseRecord:
        """The lease at its place, which it takes in the same commit; of two that try, one does."""
        spot = turn.spot
        if spot is None:
            return record
        if spot.number != NO_SEAT:
            batch.rows.append(
                SeatRecord(
                    rev=1 if spot.former is None else spot.former.rev + 1,
                    token=self.token,
                    member=spot.member,
                    number=spot.number,
                    lease=record.lease,
                    worker=record.worker,
                    taken_at=batch.now,
                )
            )
        if spot.over is not None:
            # Written, and not just expected as it was: a renewal or a resume that lands later must not find it live.
            retention_s = batch.context.settings.retention_s
            over = ended(spot.over, state="expired", reason="", now=batch.now, retention_s=retention_s)
            batch.updates.append(over)
            batch.entries.append(
                LeasesEnded(at=batch.now, actor="system", state="expired", reason="", leases=(over.lease,))
            )
        if turn.ticket is not None:
            batch.deletes.append(Delete(TicketRecord, turn.ticket.key, turn.ticket.rev))
        return msgspec.structs.replace(record, member=spot.member)

    def _own(self, batch: Batch, grant: GrantRecord, worker: WorkerRecord) -> VersionRecord:
        """The value that this lease alone has. Missing: it is to be read, or made, before."""
        held = self.holder.leases.get(self.place)
        if held is not None and batch.now >= held.record.expires_at:
            held = None
        made, head = self._made, batch.context.heads.known[self.token]
        assert head is not None, "it is leasable"
        # A live value is that of the lease it was read for, and a new one is for a lease that is still to be granted.
        if made is None or (made.state != "making" if held is None else made.lease != held.record.lease):
            if held is None:
                self._fresh(batch)
            ask = Ask(
                session=self.holder.session,
                worker=self.holder.worker,
                groups=worker.groups,
                token=head.token,
                lease="" if held is None else held.record.lease,
                ttl_s=(ceiling(grant, worker, batch.now) - batch.now).total_seconds(),
            )
            raise Missing(first=partial(self._provide, batch.context.issuing, ask))
        return as_version(made)

    async def _provide(self, issuing: Issuing, ask: Ask) -> None:
        self._made = await issuing.provide(ask)

    def _keep(self, batch: Batch, made: IssuedRecord, terms: Terms) -> None:
        """Have the value live as long as the lease that is granted with it."""
        batch.issued.append(batch.context.issuing.sign(live(made, until=terms.max_expires_at)))
        batch.entries.append(
            IssuedMade(at=batch.now, actor="system", lease=made.lease, token=made.token, issuer=made.issuer)
        )

    def _fresh(self, batch: Batch) -> int:
        """How many leases this batch gives the session beside those it holds. RateLimited: one more were too many."""
        holder, most = self.holder, batch.context.settings.leases_per_session_max
        fresh = batch.fresh.get(holder, 0)
        if len(holder.leases) + fresh >= most and self.place not in holder.leases:
            raise RateLimited(f"a session holds at most {most} leases; release some", retry_after_s=1.0)
        return fresh

    def _new(self, batch: Batch, version: int, terms: Terms, grant: str) -> LeaseRecord:
        return LeaseRecord(
            lease=next(batch.ids) if self._made is None else self._made.lease,
            token=self.token,
            version=version,
            worker=self.holder.worker,
            session=self.holder.session,
            instance=batch.context.instance,
            grant=grant,
            state="live",
            ttl_s=terms.ttl_s,
            granted_at=batch.now,
            expires_at=terms.expires_at,
            max_expires_at=terms.max_expires_at,
            due_at=terms.expires_at,
            stage=self.stage,
        )

    def done(self, batch: Batch) -> None:
        assert self._decided is not None, "it was in the batch"
        record, terms, version, (value, encoding), _ = self._decided
        self._decided = None
        holder = self.holder
        if self.turn is not None:
            self.turn.end(served=record.rev == 1)
        if holder.closed:
            return
        before = holder.leases.get(self.place)
        batch.context.hold(holder, record, before, mono=batch.mono, left_s=terms.left_s).sent = record.version
        holder.answer(
            self.id,
            ENCODER.encode(
                Granted(
                    id=self.id,
                    lease=record.lease,
                    token=self.token,
                    version=record.version,
                    value=value,
                    encoding=encoding,
                    content_type=version.content_type,
                    ttl_s=terms.left_s,
                    max_ttl_s=terms.max_left_s,
                    expires_at=terms.expires_unix,
                    stage=_STAGES[self.stage],
                )
            ),
        )

    def left_over(self, now: datetime) -> tuple[IssuedRecord, ...]:
        # With its value, which nobody gets, and which upstream has to be shown to end it.
        made = self._made
        return (to_end(made, now=now),) if made is not None and made.state == "making" else ()

    def fail(self, error: BrokerError) -> None:
        self._decided = None
        if self.turn is not None:
            self.turn.end(served=False)
        self.holder.answer(self.id, error_frame(error, self.id))
