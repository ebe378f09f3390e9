"""What administration asks of leasing. The one that answers is `broker.leases`, wired in `broker.app`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from storage.port import Page
from storage.records import LeaseRecord
from storage.table import Key

REVOKE_WAIT_S_MAX = 60.0
"""Longest time a revocation waits for workers to say that they wiped."""


class LeaseRef(NamedTuple):
    """A lease, as reports name it. member: of a pool, the token whose value it is."""

    lease: str
    worker: str
    token: str
    member: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A revoked lease whose worker has not said that it wiped the value, and what is known of that worker.

    state: "offline" where the session that held the lease has ended, at `offline_since` (None: long ago). failed: it
    answered that it could not wipe, and said `detail`; else it has not answered. expires_at: when a client that keeps
    the protocol has let go of its copy by its own clock, whatever it hears.
    """

    ref: LeaseRef
    state: Literal["connected", "offline"]
    failed: bool
    detail: str
    offline_since: datetime | None
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RevokeReport:
    """What a revocation did. wiped and missing are parts of revoked: acknowledged in time, and not."""

    revoked: tuple[LeaseRef, ...]
    wiped: tuple[LeaseRef, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseEvent:
    """Something that happened to a lease. version: 0 where the record has forgotten which.

    event: granted, pushed, applied, failed, reported, released, expired, revoked, wiped, wipe_failed. detail: what the
    worker said, or why the lease was ended.
    """

    at: datetime
    event: str
    ref: LeaseRef
    version: int
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """One page of what happened, in order of time. next: what the following page is asked for with."""

    events: tuple[LeaseEvent, ...]
    next: Key | None


class LeaseDesk(Protocol):
    """Leases, as operators see and end them."""

    async def list_leases(
        self,
        *,
        token: str | None,
        worker: str | None,
        at: datetime | None,
        include_ended: bool,
        after: Key | None,
        limit: int,
    ) -> Page[LeaseRecord]:
        """One page of leases in the order of granting: live ones, those live `at` an instant, or all on record.

        token: only those that have its value, also under the name of a pool. worker: only its. A page may hold fewer
        than `limit` although more follow: `next` alone says so.
        BadRequest: `at` is to come, or is before what is on record.
        """
        ...

    async def timeline(
        self,
        *,
        token: str | None,
        worker: str | None,
        since: datetime | None,
        until: datetime | None,
        after: Key | None,
        limit: int,
    ) -> Timeline:
        """One page of what happened to the leases of a token, of a worker, or of both, between two instants.

        since, until: None: as far back as is on record, and until now. BadRequest: an instant is to come or is before
        what is on record, or they are in the wrong order; neither token nor worker is named.
        """
        ...

    async def count_by_session(self, sessions: Sequence[str]) -> Mapping[str, int]:
        """How many live leases each of at most 1000 sessions holds; a session that is left out holds none."""
        ...

    async def revoke(
        self, *, lease: str | None, token: str | None, worker: str | None, reason: str, actor: str, wait_s: float
    ) -> RevokeReport:
        """End the leases that exactly one of lease, token, worker names, and tell their holders; a token's as listed.

        Returns when it is durable and, with wait_s above 0 (at most 60), when every connected holder said it wiped or
        the time is over. An id or name that no lease has gives an empty report.
        """
        ...
