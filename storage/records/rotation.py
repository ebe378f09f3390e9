"""Changing a token's value: rollouts of a version, policies that rotate by themselves, and how far each has come."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from storage.records.grants import Window
from storage.table import Record, Table

RolloutState = Literal["running", "confirming", "done", "rolled_back"]
RetireWhen = Literal["confirmed", "deadline", "never"]
RotationStep = Literal["idle", "create", "set", "test", "promote", "overlap", "finish", "abandon"]


class LeaseName(msgspec.Struct, frozen=True, kw_only=True):
    """A lease as people tell it apart, what was said of it, and when it ends by itself."""

    lease: str
    worker: str
    why: str = ""
    expires_at: datetime | None = None


class RolloutRecord(Record, frozen=True, kw_only=True):
    """The latest rollout of a token. Which share of the workers has the version now stands in the token's own row.

    before: the version that was current when it began. shares: of 10 000 workers, one for each step. wait_s: the
    longest that a step waits for acknowledgements. bake_s: how long it watches on when all have answered.
    abort_above: parts of 10 000 of a step's holders that may fail before all is taken back. retire: when the version
    before ends. due_at: None once it has ended, so that finding what runs costs what runs. failed: who could not use
    the version, whatever was said afterwards. unanswered: who has not confirmed, once that is all that is waited for,
    and when it ended or was taken back. holders, confirmed: as counted when it ended. The lists are cut off.
    """

    table: ClassVar[Table] = Table(name="rollout", key=("token",), due=("due_at",))

    token: str
    id: str
    version: int
    before: int
    shares: tuple[int, ...]
    wait_s: float
    bake_s: float
    abort_above: int
    retire: RetireWhen
    deadline_s: float
    state: RolloutState
    step: int
    step_at: datetime
    started_by: str
    started_at: datetime
    due_at: datetime | None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""
    failed: tuple[LeaseName, ...] = ()
    unanswered: tuple[LeaseName, ...] = ()
    holders: int = 0
    confirmed: int = 0
    mac: bytes = b""


class RolloutTallyRecord(Record, frozen=True, kw_only=True):
    """What the workers of one replica have said of a rollout. The lists are cut off; the counts are whole.

    holders: whom the step gives the version. Each of them has confirmed, failed, been silent for too long, lost its
    connection before it had answered, or is still waited for.
    """

    table: ClassVar[Table] = Table(name="rollout_tally", key=("token", "instance"))

    token: str
    instance: str
    id: str
    step: int
    holders: int
    confirmed: int
    failed_count: int
    silent_count: int
    lost_count: int
    waiting: int
    failed: tuple[LeaseName, ...]
    silent: tuple[LeaseName, ...]
    lost: tuple[LeaseName, ...]
    seen_at: datetime


class RotationPolicyRecord(Record, frozen=True, kw_only=True):
    """How a token is rotated without anybody. Authority: it decides where new values come from and go to.

    settings: of the rotator, nothing secret. credentials: the tokens that hold what the rotator signs in with, by the
    rotator's name for each. staging, staging_credentials: what a dry run puts in their place. every_s or cron: when
    (UTC); neither: only by hand. windows: a rotation begins only then (empty: always). call_s: the longest that one
    call of the rotator may take. overlap_s: how long the version before stays valid at least, and deadline_s at most
    where somebody still uses it. shares: of a rollout, of 10 000 workers; empty: all at once.
    """

    table: ClassVar[Table] = Table(name="rotation_policy", key=("token",))

    token: str
    rotator: str
    settings: dict[str, str]
    credentials: dict[str, str]
    staging: dict[str, str]
    staging_credentials: dict[str, str]
    every_s: int | None
    cron: str
    windows: tuple[Window, ...]
    call_s: int
    overlap_s: int
    deadline_s: int
    shares: tuple[int, ...]
    wait_s: float
    bake_s: float
    abort_above: int
    paused: bool
    created_by: str
    created_at: datetime
    updated_at: datetime
    mac: bytes = b""


class RotationRecord(Record, frozen=True, kw_only=True):
    """How far the rotation of a token has come. Each step is written down before the next one begins.

    id: of this rotation, the same for all attempts; empty before the first. version: the one it made, 0 before that.
    former: the version that was current when it began. notes: what the rotator told of its work, nothing secret.
    attempt: of this step, from 1. due_at: when something is to be done next; None: never by itself.
    error: of the last attempt, empty after one that went well. stuck_since: the first failure that nothing followed.
    ending: why it is abandoned. expires_at: when upstream ends the value in use by itself, where it said so.
    unanswered: who still used the former version when the deadline came, the end of a long list cut off.
    """

    table: ClassVar[Table] = Table(name="rotation", key=("token",), due=("due_at",))

    token: str
    id: str
    step: RotationStep
    version: int
    former: int
    notes: dict[str, str]
    attempt: int
    step_at: datetime
    due_at: datetime | None
    started_at: datetime | None = None
    error: str = ""
    stuck_since: datetime | None = None
    last_at: datetime | None = None
    last_version: int = 0
    last_outcome: str = ""
    started_by: str = ""
    ending: str = ""
    expires_at: datetime | None = None
    unanswered: tuple[LeaseName, ...] = ()
    mac: bytes = b""
