"""Bodies about leases and sessions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from broker.api.paging import PageQuery
from broker.api.views.common import Answer, Instant, Name, Reason, Request, TokenName

if TYPE_CHECKING:
    from broker.admin.ports import LeaseEvent, LeaseRef, Missing, RevokeReport
    from storage.records import LeaseRecord, SessionRecord

LeaseId = Annotated[str, Meta(pattern="^[0-9a-z]{1,64}$")]


class LeaseQuery(PageQuery, frozen=True, kw_only=True):
    """token: only those that have its value, also as a member of a pool. worker: only its.

    at: those live at that instant. all: ended ones too. Neither: those live now.
    """

    token: str | None = None
    worker: str | None = None
    at: Instant | None = None
    all: bool = False


class SessionQuery(PageQuery, frozen=True, kw_only=True):
    """worker: only its sessions. all: ended ones too."""

    worker: str | None = None
    all: bool = False


class RevokeLeases(Request, frozen=True, kw_only=True):
    """Exactly one of lease, token (as in lists) and worker. wait_s: how long to wait for workers to say they wiped."""

    lease: LeaseId | None = None
    token: TokenName | None = None
    worker: Name | None = None
    reason: Reason
    wait_s: Annotated[float, Meta(ge=0, le=60)] = 0.0


class Report(Answer, frozen=True, kw_only=True):
    """What a worker said of a version: refused or rate-limited upstream, or working again after that."""

    event: str
    at: Instant
    version: int
    retry_after_s: float | None


class Lease(Answer, frozen=True, kw_only=True):
    """A lease. acked_version: the version its worker last said it uses, 0 for none yet. stage: which it follows.

    version: 0 where it is asked how the lease stood so many versions ago that the record has forgotten. acked_at: when
    the worker said that it uses this version. report: what it said last of a value that gave trouble. member: of a
    pool, the token whose value it is.
    """

    lease: str
    token: str
    version: int
    stage: Literal["current", "previous"]
    worker: str
    session: str
    instance: str
    grant: str
    state: Literal["live", "released", "expired", "revoked"]
    granted_at: Instant
    expires_at: Instant
    max_expires_at: Instant
    ended_at: Instant | None
    reason: str
    acked_version: int
    acked_at: Instant | None
    ack_failed: str
    wiped_at: Instant | None
    report: Report | None
    member: str


class TimelineQuery(PageQuery, frozen=True, kw_only=True):
    """token, worker: one of them, or both. from, to: only between these instants; as far back as is on record."""

    token: str | None = None
    worker: str | None = None
    since: Instant | None = msgspec.field(default=None, name="from")
    until: Instant | None = msgspec.field(default=None, name="to")


class Event(Answer, frozen=True, kw_only=True):
    """Something that happened to a lease. version: that it is about, 0 where the record has forgotten which.

    member: of a pool, the token whose value the lease had. detail: what the worker said, or why the lease was ended.
    """

    at: Instant
    event: str
    lease: str
    worker: str
    token: str
    member: str
    version: int
    detail: str


class LeaseName(Answer, frozen=True, kw_only=True):
    """A lease, as reports name it. member: of a pool, the token whose value it is."""

    lease: str
    worker: str
    token: str
    member: str


class MissingLease(LeaseName, frozen=True, kw_only=True):
    """A revoked lease whose worker has not said that it wiped.

    state: connected, or offline: the session that held the lease ended at offline_since, null: long ago. failed: it
    answered that it could not wipe, with detail; else it has not answered. expires_at: when its copy is over by the
    client's own clock.
    """

    state: Literal["connected", "offline"]
    failed: bool
    detail: str
    offline_since: Instant | None
    expires_at: Instant


class Revocation(Answer, frozen=True, kw_only=True):
    """wiped and missing are parts of revoked: acknowledged within wait_s, and not."""

    revoked: list[LeaseName]
    wiped: list[LeaseName]
    missing: list[MissingLease]


class Session(Answer, frozen=True, kw_only=True):
    """A connection of a worker. leases: how many live ones it holds."""

    session: str
    worker: str
    instance: str
    source: str
    client: str
    connected_at: Instant
    ended_at: Instant | None
    close_code: int
    leases: int


def lease_view(record: LeaseRecord) -> Lease:
    """A lease as answers show it."""
    said = record.report
    return Lease(
        lease=record.lease,
        token=record.token,
        version=record.version,
        stage=record.stage,
        worker=record.worker,
        session=record.session,
        instance=record.instance,
        grant=record.grant,
        state=record.state,
        granted_at=record.granted_at,
        expires_at=record.expires_at,
        max_expires_at=record.max_expires_at,
        ended_at=record.ended_at,
        reason=record.reason,
        acked_version=record.acked_version,
        acked_at=record.acked_at,
        ack_failed=record.ack_failed,
        wiped_at=record.wiped_at,
        report=None if said is None else Report(**msgspec.structs.asdict(said)),
        member=record.member,
    )


def revocation_view(report: RevokeReport) -> Revocation:
    """What a revocation did."""
    return Revocation(
        revoked=_names(report.revoked), wiped=_names(report.wiped), missing=[_missing(each) for each in report.missing]
    )


def event_view(event: LeaseEvent) -> Event:
    """Something that happened, as answers show it."""
    return Event(at=event.at, event=event.event, version=event.version, detail=event.detail, **event.ref._asdict())


def session_view(record: SessionRecord, leases: int) -> Session:
    """A session as answers show it."""
    return Session(
        session=record.session,
        worker=record.worker,
        instance=record.instance,
        source=record.source,
        client=record.client,
        connected_at=record.connected_at,
        ended_at=record.ended_at,
        close_code=record.close_code,
        leases=leases,
    )


def _names(refs: Iterable[LeaseRef]) -> list[LeaseName]:
    return [LeaseName(**ref._asdict()) for ref in refs]


def _missing(missing: Missing) -> MissingLease:
    return MissingLease(
        state=missing.state,
        failed=missing.failed,
        detail=missing.detail,
        offline_since=missing.offline_since,
        expires_at=missing.expires_at,
        **missing.ref._asdict(),
    )
