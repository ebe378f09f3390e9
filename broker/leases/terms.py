"""How long a lease lasts: pure arithmetic over grants, workers and instants."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from storage.records import GrantRecord, LeaseRecord, WorkerRecord

WORTH_RENEWING_S = 0.05
"""A renewal that would add less than this is not made: the lease has reached its ceiling."""


def ceiling(grant: GrantRecord, worker: WorkerRecord, granted_at: datetime) -> datetime:
    """The instant that a lease granted at `granted_at` never passes: the grant's maximum, its end, the worker's end."""
    end = granted_at + timedelta(seconds=grant.max_ttl_s)
    if grant.expires_at is not None and grant.expires_at < end:
        end = grant.expires_at
    if worker.expires_at is not None and worker.expires_at < end:
        end = worker.expires_at
    return end


def extended(
    record: LeaseRecord,
    *,
    grant: GrantRecord,
    worker: WorkerRecord,
    now: datetime,
    ttl_s: float,
    version: int | None = None,
) -> LeaseRecord:
    """The lease with `ttl_s` from `now`, under the ceiling set when it was granted and those that hold now.

    version: of the token, where another one is about to be sent.
    """
    expires_at = min(now + timedelta(seconds=ttl_s), record.max_expires_at, ceiling(grant, worker, record.granted_at))
    return msgspec.structs.replace(
        record,
        rev=record.rev + 1,
        version=record.version if version is None else version,
        ttl_s=ttl_s,
        grant=grant.id,
        expires_at=expires_at,
        due_at=expires_at,
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
