"""What the row of a lease tells of its past: how it stood at an instant, and what happened to it when. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from broker.leases.versions import wipe_failed
from storage.records import LeaseRecord

EventKind = Literal[
    "granted",
    "pushed",
    "applied",
    "failed",
    "reported",
    "released",
    "expired",
    "revoked",
    "wiped",
    "wipe_failed",
]


class Event(NamedTuple):
    """Something that happened to a lease. version: that it is about, 0 where the row has forgotten which that was.

    member: of a pool, the token whose value the lease had.
    detail: what its worker said, or why the lease was ended.
    """

    at: datetime
    event: EventKind
    lease: str
    worker: str
    token: str
    member: str
    version: int
    detail: str = ""


class _Version(NamedTuple):
    version: int
    since: datetime
    acked_at: datetime | None


def live_at(record: LeaseRecord, at: datetime) -> bool:
    """Whether the lease was live at the instant: granted by then, and neither expired nor ended."""
    end = record.expires_at if record.ended_at is None else min(record.ended_at, record.expires_at)
    return record.granted_at <= at < end


def as_of(record: LeaseRecord, at: datetime) -> LeaseRecord:
    """How a lease stood at an instant at which it was live: its version then, and what had been said of it by then.

    version is 0 where it has had so many since that the row has forgotten. Session, replica, member and times of expiry
    are those that it had last: earlier ones are in the audit log.
    """
    versions = _versions(record)
    then = next((each for each in reversed(versions) if each.since <= at), None)
    said = [each for each in versions if each.acked_at is not None and each.acked_at <= at]
    latest = max(said, key=lambda each: each.acked_at or at, default=None)
    failed = record.failed_at is not None and record.failed_at <= at and not wipe_failed(record)
    return msgspec.structs.replace(
        record,
        state="live",
        version=0 if then is None else then.version,
        version_at=None if then is None else then.since,
        acked_version=0 if latest is None else latest.version,
        acked_at=None if then is None or then not in said else then.acked_at,
        ack_failed=record.ack_failed if failed else "",
        failed_at=record.failed_at if failed else None,
        report=record.report if record.report is not None and record.report.at <= at else None,
        ended_at=None,
        reason="",
        wiped_at=None,
        past=tuple(each for each in record.past if then is not None and each.since < then.since),
    )


def events_of(record: LeaseRecord, now: datetime) -> list[Event]:
    """Everything that the row tells, in order of time. Renewals are left out; the audit log has them."""
    return sorted(_events(record, now), key=lambda event: event.at)


def _events(record: LeaseRecord, now: datetime) -> Iterator[Event]:
    def event(at: datetime, kind: EventKind, version: int, detail: str = "") -> Event:
        return Event(at, kind, record.lease, record.worker, record.token, record.member, version, detail)

    first, *later = versions = _versions(record)
    granted = first.since <= record.granted_at
    yield event(record.granted_at, "granted", first.version if granted else 0)
    for each in later if granted else versions:
        yield event(each.since, "pushed", each.version)
    for each in versions:
        if each.acked_at is not None:
            yield event(each.acked_at, "applied", each.version)
    if record.failed_at is not None:
        kind: EventKind = "wipe_failed" if wipe_failed(record) else "failed"
        yield event(record.failed_at, kind, record.version, record.ack_failed)
    if (said := record.report) is not None:
        yield event(said.at, "reported", said.version, said.event)
    if record.state == "live":
        if record.expires_at <= now:
            yield event(record.expires_at, "expired", record.version)
    elif record.ended_at is not None:
        ended_at = min(record.ended_at, record.expires_at) if record.state == "expired" else record.ended_at
        yield event(ended_at, record.state, record.version, record.reason)
    if record.wiped_at is not None:
        yield event(record.wiped_at, "wiped", record.version)


def _versions(record: LeaseRecord) -> list[_Version]:
    """Every version that the row remembers, oldest first; the last one is the one that it has."""
    before = [_Version(each.version, each.since, each.acked_at) for each in record.past]
    return [*before, _Version(record.version, record.version_at or record.granted_at, record.acked_at)]
