"""Bodies about pools. No answer has a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from broker.admin.asked import COOL_DOWN_S_MAX, MEMBERS_MAX, SEATS_MAX, WITNESSES_MAX, NewPool
from broker.api.views.common import Answer, Instant, Reason, Request, TokenName

if TYPE_CHECKING:
    from broker.admin.pool_book import MemberStatus, PoolStatus
    from storage.records import PoolRecord

Places = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": SEATS_MAX})]
CoolDown = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": COOL_DOWN_S_MAX})]
Witnesses = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": WITNESSES_MAX})]
MemberHealth = Literal["well", "resting", "quarantined", "unusable"]


class PoolPath(msgspec.Struct, frozen=True):
    """A pool in a path: its slashes as they are, or as %2F."""

    token: TokenName


class DefinePool(Request, frozen=True, kw_only=True):
    """What the pool shall be. leases_max: of each member at a time, 0 for any number; left out: as it is, or 0.

    cool_down_s: how long a member rests whose worker was rate-limited; left out: as it is, or 30. witnesses:
    workers that have to report a version as rejected before its member is quarantined; left out: as it is, or 2.
    """

    members: Annotated[tuple[TokenName, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]
    leases_max: Places | None = None
    cool_down_s: CoolDown | None = None
    witnesses: Witnesses | None = None

    def new_pool(self, token: str) -> NewPool:
        """What the service makes."""
        return NewPool(
            token=token,
            members=self.members,
            leases_max=self.leases_max,
            cool_down_s=self.cool_down_s,
            witnesses=self.witnesses,
        )


class PoolMember(Request, frozen=True, kw_only=True):
    """A member."""

    member: TokenName


class QuarantineMember(Request, frozen=True, kw_only=True):
    """A member, and why it is to be leased to nobody."""

    member: TokenName
    reason: Reason


class Pool(Answer, frozen=True, kw_only=True):
    """A pool. leases_max: of each member at a time, 0 for any number. witnesses: for a quarantine."""

    token: str
    members: list[str]
    leases_max: int
    cool_down_s: int
    witnesses: int
    created_by: str
    created_at: Instant
    updated_at: Instant
    revision: int


class PoolMemberState(Answer, frozen=True, kw_only=True):
    """A member. unusable: it is disabled, or has no current version. rested_by: whose report let it rest.

    rejected_by: workers that reported its current version as rejected.
    """

    member: str
    leases: int
    health: MemberHealth
    cool_until: Instant | None
    rested_by: str
    quarantined_at: Instant | None
    reason: str
    rejected_by: list[str]


class PoolLease(Answer, frozen=True, kw_only=True):
    """Who holds a member's value."""

    lease: str
    member: str
    worker: str
    expires_at: Instant


class PoolTurn(Answer, frozen=True, kw_only=True):
    """Who waits in line."""

    worker: str
    instance: str
    asked_at: Instant
    until: Instant


class PoolState(Answer, frozen=True, kw_only=True):
    """A pool now, on all replicas. leases, waiting: at most 1000 of each, the oldest; waiting_count: of all."""

    pool: Pool
    members: list[PoolMemberState]
    leases: list[PoolLease]
    waiting: list[PoolTurn]
    waiting_count: int


def pool_view(record: PoolRecord) -> Pool:
    """A pool as answers show it."""
    return Pool(
        token=record.token,
        members=list(record.members),
        leases_max=record.leases_max,
        cool_down_s=record.cool_down_s,
        witnesses=record.witnesses,
        created_by=record.created_by,
        created_at=record.created_at,
        updated_at=record.updated_at,
        revision=record.rev,
    )


def state_view(status: PoolStatus) -> PoolState:
    """A pool's state as answers show it."""
    return PoolState(
        pool=pool_view(status.pool),
        members=[_member(member) for member in status.members],
        leases=[
            PoolLease(lease=row.lease, member=row.member, worker=row.worker, expires_at=row.expires_at)
            for row in status.leases
        ],
        waiting=[
            PoolTurn(worker=row.worker, instance=row.instance, asked_at=row.asked_at, until=row.until)
            for row in status.waiting
        ],
        waiting_count=status.waiting_count,
    )


def _member(status: MemberStatus) -> PoolMemberState:
    row = status.row
    return PoolMemberState(
        member=status.member,
        leases=status.leases,
        health="unusable" if status.health is None else status.health.value,
        cool_until=None if row is None else row.cool_until,
        rested_by="" if row is None else row.rested_by,
        quarantined_at=None if row is None else row.quarantined_at,
        reason="" if row is None else row.reason,
        rejected_by=[] if row is None else list(row.rejected_by),
    )
