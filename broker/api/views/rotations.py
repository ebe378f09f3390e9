"""Bodies about rotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, field

from broker.api.views.common import Answer, Instant, Request, Seconds, TokenName
from broker.api.views.grants import GrantWindow, WeeklyWindow
from broker.api.views.tokens import Number
from broker.rotation.terms import ABORT_ABOVE, BAKE_S, CALL_S, CALL_S_MAX, DEADLINE_S, OVERLAP_S, WAIT_S, NewPolicy
from storage.records import RotationPolicyRecord, RotationRecord
from storage.records.grants import Window

if TYPE_CHECKING:
    from broker.rotation.trying import Tried

Texts = dict[str, str]
Share = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 10_000})]


class SetRotation(Request, frozen=True, kw_only=True):
    """A policy. settings: the rotator's. credentials: tokens, by the rotator's name for each. staging: what a dry run
    puts in their place. every_s or cron (UTC): when; neither: by hand. windows: it begins only then. call_s: the most
    that one call of the rotator takes. overlap_s, deadline_s: how long the former version stays valid, at least, and at
    most where somebody still uses it. shares: of a rollout, of 10 000 workers; none: all at once.
    """

    rotator: Annotated[str, Meta(min_length=1, max_length=64)]
    settings: Texts = field(default_factory=dict)
    credentials: Texts = field(default_factory=dict)
    staging: Texts = field(default_factory=dict)
    staging_credentials: Texts = field(default_factory=dict)
    every_s: Annotated[int, Meta(extra_json_schema={"minimum": 60})] | None = None
    cron: str = ""
    windows: tuple[WeeklyWindow, ...] = ()
    call_s: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": CALL_S_MAX})] = CALL_S
    overlap_s: Seconds = OVERLAP_S
    deadline_s: Seconds = DEADLINE_S
    shares: tuple[Share, ...] = ()
    wait_s: float = WAIT_S
    bake_s: float = BAKE_S
    abort_above: Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": 9_999})] = ABORT_ABOVE

    def new_policy(self, token: str) -> NewPolicy:
        """What the service sets."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "windows"}
        windows = [
            Window(days=tuple(window.days), start_min=window.start_min, end_min=window.end_min)
            for window in self.windows
        ]
        return NewPolicy(token=token, windows=windows, **fields)


class RunRotation(Request, frozen=True, kw_only=True):
    """version: a stored one that is to become current like a rotated one; none: the rotator makes one."""

    version: Number | None = None


class AbandonRotation(Request, frozen=True, kw_only=True):
    """force: end it where it stands, without a word to upstream."""

    force: bool = False


class StillUsing(Answer, frozen=True, kw_only=True):
    """A lease that still used the former version when the deadline came."""

    lease: str
    worker: str
    why: str


class RotationState(Answer, frozen=True, kw_only=True):
    """How far it is. rotation: the id of the one under way, or the last. due_at: when something is done next.

    error: of the last attempt, empty after one that went well. stuck_since: the first failure that nothing followed.
    """

    step: Literal["idle", "create", "set", "test", "promote", "overlap", "finish", "abandon"]
    rotation: str
    version: int
    former: int
    attempt: int
    step_at: Instant
    due_at: Instant | None
    started_at: Instant | None
    started_by: str
    error: str
    stuck_since: Instant | None
    notes: Texts
    unanswered: list[StillUsing]
    value_expires_at: Instant | None
    last_at: Instant | None
    last_version: int
    last_outcome: str


class Rotation(Answer, frozen=True, kw_only=True):
    """A policy, and how far its rotation is."""

    token: TokenName
    rotator: str
    settings: Texts
    credentials: Texts
    staging: Texts
    staging_credentials: Texts
    every_s: int | None
    cron: str
    windows: list[GrantWindow]
    call_s: int
    overlap_s: int
    deadline_s: int
    shares: list[int]
    wait_s: float
    bake_s: float
    abort_above: int
    paused: bool
    created_by: str
    created_at: Instant
    updated_at: Instant
    revision: int
    state: RotationState | None


class TriedStep(Answer, frozen=True, kw_only=True):
    """error: empty if the step went well."""

    step: str
    error: str


class DryRun(Answer, frozen=True, kw_only=True):
    """What each step of a dry run came to. ok: all of them went well."""

    token: str
    ok: bool
    steps: list[TriedStep]


class Rotators(Answer, frozen=True, kw_only=True):
    """What is installed."""

    rotators: list[str]


_SHARED = [
    name
    for name in Rotation.__struct_fields__
    if name in RotationPolicyRecord.__struct_fields__ and name not in {"windows", "shares"}
]


def rotation_view(policy: RotationPolicyRecord, state: RotationRecord | None) -> Rotation:
    """A rotation as answers show it. state: None for one that was set just now elsewhere."""
    return Rotation(
        **{name: getattr(policy, name) for name in _SHARED},
        windows=[
            GrantWindow(days=list(each.days), start_min=each.start_min, end_min=each.end_min) for each in policy.windows
        ],
        shares=list(policy.shares),
        revision=policy.rev,
        state=None if state is None else _state_view(state),
    )


def dry_run_view(token: str, tried: tuple[Tried, ...]) -> DryRun:
    """What a dry run came to."""
    steps = [TriedStep(step=each.step, error=each.error) for each in tried]
    return DryRun(token=token, ok=not any(each.error for each in tried), steps=steps)


def _state_view(record: RotationRecord) -> RotationState:
    fields = msgspec.structs.asdict(record)
    known = {name: fields[name] for name in RotationState.__struct_fields__ if name in fields and name != "unanswered"}
    return RotationState(
        **known,
        rotation=record.id,
        value_expires_at=record.expires_at,
        unanswered=[StillUsing(lease=each.lease, worker=each.worker, why=each.why) for each in record.unanswered],
    )
