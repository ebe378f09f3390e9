"""What the workers of one replica said of a rollout, out of what is held in memory: pure. Writing it is `tallies`'s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.leases.held import Held
from broker.leases.shares import bucket
from broker.leases.versions import is_confirmed
from broker.rotation.rollouts import NAMED_MAX, PATIENCE
from storage.records import LeaseRecord, RolloutRecord, RolloutTallyRecord
from storage.records.rotation import LeaseName

LOST_S: Final = 10.0
"""How long a worker that lost its connection before it answered has to come back, on this replica or another."""


class Stand(Enum):
    """How one holder stands to the version of a rollout."""

    CONFIRMED = "confirmed"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """A lease that was held here when its connection ended, as it is on record now. seen_at: first missed then."""

    record: LeaseRecord
    seen_at: datetime


def takes_part(rollout: RolloutRecord, record: LeaseRecord) -> bool:
    """Whether the step that the rollout is at gives this lease the version."""
    if record.stage != "current":
        return False
    return bucket(rollout.token, record.worker, rollout.version) < rollout.shares[rollout.step]


def complaint(rollout: RolloutRecord, record: LeaseRecord) -> str:
    """What the worker says is wrong with the version that it was sent; empty: nothing."""
    if record.version != rollout.version:
        return ""
    if record.ack_failed:
        return f"failed: {record.ack_failed}"
    report = record.report
    since = record.version_at or record.granted_at
    if report is not None and report.event == "rejected" and report.version == rollout.version and report.at >= since:
        return "rejected upstream"
    return ""


def has_answered(rollout: RolloutRecord, record: LeaseRecord) -> bool:
    """Whether the worker has the version and nothing is waited for."""
    return record.version == rollout.version and is_confirmed(record)


def tally(
    rollout: RolloutRecord,
    *,
    instance: str,
    held: Iterable[Held],
    gone: Iterable[Gone],
    failed: Mapping[str, LeaseName],
    now: datetime,
) -> RolloutTallyRecord:
    """The count of one replica. failed: who could not use the version, now or earlier; each stays counted as such."""
    confirmed = waiting = 0
    silent: list[LeaseName] = []
    lost: list[LeaseName] = []
    for each in held:
        record = each.record
        if record.lease in failed or not takes_part(rollout, record):
            continue
        if each.sent == rollout.version and has_answered(rollout, record):
            confirmed += 1
        elif now >= _silent_at(rollout, record):
            silent.append(LeaseName(lease=record.lease, worker=record.worker, why="did not answer"))
        else:
            waiting += 1
    for missed in gone:
        if missed.record.lease in failed:
            continue
        if now >= missed.seen_at + timedelta(seconds=min(LOST_S, rollout.wait_s)):
            lost.append(LeaseName(lease=missed.record.lease, worker=missed.record.worker, why="lost its connection"))
        else:
            waiting += 1
    return RolloutTallyRecord(
        token=rollout.token,
        instance=instance,
        id=rollout.id,
        step=rollout.step,
        holders=confirmed + waiting + len(failed) + len(silent) + len(lost),
        confirmed=confirmed,
        failed_count=len(failed),
        silent_count=len(silent),
        lost_count=len(lost),
        waiting=waiting,
        failed=tuple(failed.values())[:NAMED_MAX],
        silent=tuple(silent[:NAMED_MAX]),
        lost=tuple(lost[:NAMED_MAX]),
        seen_at=now,
    )


def _silent_at(rollout: RolloutRecord, record: LeaseRecord) -> datetime:
    """Whoever is sent the version late in the step, having just come back, has as long as the others. Coming back again
    and again gives no more than twice that: else who comes and goes would hold the step up for ever."""
    wait = timedelta(seconds=rollout.wait_s)
    if record.version != rollout.version or record.pushed_at is None:
        return rollout.step_at + wait
    had_at = max(rollout.step_at, record.version_at or record.granted_at)
    return min(max(rollout.step_at, record.pushed_at) + wait, had_at + PATIENCE * wait)
