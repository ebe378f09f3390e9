"""How long a lease lasts: pure arithmetic over grants, workers and instants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from storage.records import GrantRecord, LeaseRecord, WorkerRecord
from storage.records.leases import LeaseStage

WORTH_RENEWING_S = 0.05
"""A renewal that would add less than this is not made: the lease has reached its ceiling."""

NO_VERSION: Final[Mapping[LeaseStage, str]] = {"current": "no_current_version", "previous": "no_previous_version"}
"""Why leases are revoked whose token was disabled, deleted, or has no version of the stage that they follow."""


class Terms(NamedTuple):
    """When a lease that is granted now ends, as instants and as seconds from now; `expires_unix` is Unix seconds."""

    ttl_s: float
    expires_at: datetime
    max_expires_at: datetime
    left_s: float
    max_left_s: float
    expires_unix: float


def first_terms(grant: GrantRecord, worker: WorkerRecord, now: datetime, asked_s: float | None) -> Terms:
    """The terms of a lease granted at `now`: the smallest of what was asked, the grant's maximum and what is left."""
    return _terms(min(asked_s or grant.ttl_s, grant.max_ttl_s), ceiling(grant, worker, now), now)


def capped(terms: Terms, end: datetime | None, *, now: datetime) -> Terms:
    """Those terms, and nothing after `end`: what is leased ends then by itself. None: it does not."""
    if end is None or end >= terms.max_expires_at:
        return terms
    return _terms(terms.ttl_s, max(now, end), now)


def next_terms(record: LeaseRecord, *, grant: GrantRecord, worker: WorkerRecord, now: datetime, ttl_s: float) -> Terms:
    """The terms of a live lease extended at `now`: under the ceiling set when it was granted and those that hold now.

    A ceiling that has come down since, as when a more generous grant was removed, ends extensions. `cut` takes time
    back that was given.
    """
    end = max(record.expires_at, min(record.max_expires_at, ceiling(grant, worker, record.granted_at)))
    return _terms(ttl_s, end, now)


def _terms(ttl_s: float, end: datetime, now: datetime) -> Terms:
    expires_at = min(now + timedelta(seconds=ttl_s), end)
    return Terms(
        ttl_s=float(ttl_s),
        expires_at=expires_at,
        max_expires_at=end,
        left_s=(expires_at - now).total_seconds(),
        max_left_s=(end - now).total_seconds(),
        expires_unix=expires_at.timestamp(),
    )


def ceiling(grant: GrantRecord, worker: WorkerRecord, granted_at: datetime) -> datetime:
    """The instant that a lease granted at `granted_at` never passes: the grant's maximum, its end, the worker's end."""
    end = granted_at + timedelta(seconds=grant.max_ttl_s)
    if grant.expires_at is not None and grant.expires_at < end:
        end = grant.expires_at
    if worker.expires_at is not None and worker.expires_at < end:
        end = worker.expires_at
    return end


def extended(record: LeaseRecord, terms: Terms, *, grant: str) -> LeaseRecord:
    """The lease with these terms."""
    return msgspec.structs.replace(
        record,
        rev=record.rev + 1,
        ttl_s=terms.ttl_s,
        grant=grant,
        expires_at=terms.expires_at,
        due_at=terms.expires_at,
    )


def cut(record: LeaseRecord, *, grant: GrantRecord, worker: WorkerRecord, now: datetime) -> LeaseRecord | None:
    """The lease brought down to when its grant or its worker ends; None when it ends before that anyway.

    A shorter maximum of another grant takes nothing back: it ends extensions (`next_terms`).
    """
    end = record.expires_at
    if grant.expires_at is not None and grant.expires_at < end:
        end = grant.expires_at
    if worker.expires_at is not None and worker.expires_at < end:
        end = worker.expires_at
    if end == record.expires_at:
        return None
    end = max(now, end)
    return msgspec.structs.replace(
        record, rev=record.rev + 1, grant=grant.id, expires_at=end, due_at=end, max_expires_at=end
    )


def ended(record: LeaseRecord, *, state: str, reason: str, now: datetime, retention_s: float) -> LeaseRecord:
    """The lease after its end: no longer due, kept on record for `retention_s` seconds."""
    return msgspec.structs.replace(
        record,
        rev=record.rev + 1,
        state=state,
        reason=reason,
        due_at=None,
        ended_at=now,
        prune_at=now + timedelta(seconds=retention_s),
    )
