"""Bodies about rollouts. Shares are parts of 10 000 workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from broker.api.views.common import Answer, Instant, Request
from broker.api.views.tokens import Number
from broker.rotation.rollouts import NewRollout
from storage.records.rotation import LeaseName

if TYPE_CHECKING:
    from broker.rotation.rollout_admin import Status
    from storage.records import RolloutRecord

Retire = Literal["confirmed", "deadline", "never"]
Span = Annotated[float, Meta(ge=0)]


class StartRollout(Request, frozen=True, kw_only=True):
    """Which version, and in which steps: each share is larger than the one before, and the last is 10 000.

    wait_s: the longest that a step waits for its holders. bake_s: how long it is watched on when all have answered.
    abort_above: parts of 10 000 of a step's holders that may fail. retire: when the version before is retired.
    """

    version: Number
    shares: Annotated[tuple[int, ...], Meta(max_length=1000)] = (10_000,)
    wait_s: Span = 120.0
    bake_s: Span = 5.0
    abort_above: int = 100
    retire: Retire = "confirmed"
    deadline_s: Span = 3600.0

    def wanted(self) -> NewRollout:
        """What the service starts."""
        return NewRollout(
            version=self.version,
            shares=self.shares,
            wait_s=self.wait_s,
            bake_s=self.bake_s,
            abort_above=self.abort_above,
            retire=self.retire,
            deadline_s=self.deadline_s,
        )


class HolderName(Answer, frozen=True, kw_only=True):
    """A holder that did not confirm, and why not. expires_at: when his copy ends by itself, where that is known."""

    lease: str
    worker: str
    why: str
    expires_at: Instant | None


class RolloutSummary(Answer, frozen=True, kw_only=True):
    """The latest rollout of a token. share: of its step. version, before: the one that comes, and the one that was."""

    token: str
    rollout: str
    version: int
    before: int
    state: Literal["running", "confirming", "done", "rolled_back"]
    step: int
    shares: list[int]
    share: int
    reason: str
    started_by: str
    started_at: Instant
    ended_at: Instant | None


class Rollout(RolloutSummary, frozen=True, kw_only=True):
    """A rollout, and what the holders said. While it runs, each is confirmed, failed, silent, lost or waited for.

    holders: of this step; after the end, as counted then, and confirmed and failed with it. The lists name at most 200.
    unanswered: who has not confirmed when that is all that is waited for, and who had not at the end, silent or lost.
    untold: replicas that have not told yet.
    """

    wait_s: float
    bake_s: float
    abort_above: int
    retire: Retire
    deadline_s: float
    step_at: Instant
    answered_at: Instant | None
    holders: int
    confirmed: int
    waiting: int
    failed_count: int
    silent_count: int
    lost_count: int
    failed: list[HolderName]
    silent: list[HolderName]
    lost: list[HolderName]
    unanswered: list[HolderName]
    untold: list[str]


def rollout_view(status: Status) -> Rollout:
    """A rollout as answers show it."""
    record, said = status
    return Rollout(
        **msgspec.structs.asdict(summary_view(record)),
        wait_s=record.wait_s,
        bake_s=record.bake_s,
        abort_above=record.abort_above,
        retire=record.retire,
        deadline_s=record.deadline_s,
        step_at=record.step_at,
        answered_at=record.answered_at,
        holders=said.holders,
        confirmed=said.confirmed,
        waiting=said.waiting,
        failed_count=said.failed,
        silent_count=said.silent,
        lost_count=said.lost,
        failed=_named(said.named_failed),
        silent=_named(said.named_silent),
        lost=_named(said.named_lost),
        unanswered=_named(record.unanswered),
        untold=list(said.untold),
    )


def summary_view(record: RolloutRecord) -> RolloutSummary:
    """The same without what the holders said."""
    return RolloutSummary(
        token=record.token,
        rollout=record.id,
        version=record.version,
        before=record.before,
        state=record.state,
        step=record.step,
        shares=list(record.shares),
        share=record.shares[record.step],
        reason=record.reason,
        started_by=record.started_by,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def _named(names: tuple[LeaseName, ...]) -> list[HolderName]:
    return [
        HolderName(lease=name.lease, worker=name.worker, why=name.why, expires_at=name.expires_at) for name in names
    ]
