"""Leases and sessions: who holds what, now and before. The two tables that the hot path writes."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from storage.table import Record, Table

LeaseState = Literal["live", "released", "expired", "revoked"]
LeaseStage = Literal["current", "previous"]


class LeaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What its worker said last of a version that it used: rejected, rate_limited, or ok after one of those.

    retry_after_s: how long upstream told it to wait, where it said so.
    """

    event: str
    at: datetime
    version: int
    retry_after_s: float | None = None


class PastVersion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A version that the lease had before, from `since` on. acked_at: when its worker said that it applied it."""

    version: int
    since: datetime
    acked_at: datetime | None = None


class LeaseRecord(Record, frozen=True, kw_only=True):
    """One worker's right to one token.

    due_at equals expires_at while the lease is live and is None afterwards, so that finding what expires costs what
    expires. Ids are time-ordered, so inserts stay at the end of the table; there is no index on token or worker.
    prune_at is None while live. stage: which version of the token it follows. version_at: since when it has its
    version; None: since it was granted. pushed_at: when that was pushed; None: it was the answer to a request of its
    worker, which waits for no acknowledgement. acked_at: when the worker said that it applied it. acked_version: the
    one that it last said it uses. ack_failed, failed_at: what it said, and when, if it could not apply its version, or
    could not wipe it. past: the versions before, oldest first, the oldest of many cut off. member: of the pool, the
    token whose value it is; empty where the token is no pool.
    """

    table: ClassVar[Table] = Table(name="lease", key=("lease",), due=("due_at", "prune_at"))

    lease: str
    token: str
    version: int
    worker: str
    session: str
    instance: str
    grant: str
    state: LeaseState
    ttl_s: float
    granted_at: datetime
    expires_at: datetime
    max_expires_at: datetime
    due_at: datetime | None
    ended_at: datetime | None = None
    reason: str = ""
    acked_version: int = 0
    ack_failed: str = ""
    wiped_at: datetime | None = None
    prune_at: datetime | None = None
    stage: LeaseStage = "current"
    report: LeaseReport | None = None
    version_at: datetime | None = None
    pushed_at: datetime | None = None
    acked_at: datetime | None = None
    failed_at: datetime | None = None
    past: tuple[PastVersion, ...] = ()
    member: str = ""


class SessionRecord(Record, frozen=True, kw_only=True):
    """One authenticated connection.

    `due_at` is None while it is open; afterwards it says when the row may be pruned.
    """

    table: ClassVar[Table] = Table(name="session", key=("session",), indexes={"worker": ("worker",)}, due=("due_at",))

    session: str
    worker: str
    instance: str
    source: str
    client: str
    connected_at: datetime
    ended_at: datetime | None = None
    close_code: int = 0
    due_at: datetime | None = None
