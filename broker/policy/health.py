"""Whether a member of a pool may be leased, and what a worker's report changes about that. Pure.

A report is one worker's word. It lets a member rest; it takes as many workers as the pool says to have one quarantined,
and no worker's word keeps more than half of a pool resting. So, unless one suffices, a liar costs the others some of
their places for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from storage.records import MemberRecord, PoolRecord
from tokenbroker_client.wire import ReportEvent

REST_MAX: Final = timedelta(minutes=15)
"""The longest that a member rests after one report, whatever upstream is said to have asked for."""
REMEMBERED: Final = timedelta(hours=1)
"""A rejection counts together with one that came at most so long after it."""


class Health(StrEnum):
    """How a member does."""

    WELL = "well"
    RESTING = "resting"
    QUARANTINED = "quarantined"


def health(row: MemberRecord | None, version: int, now: datetime) -> Health:
    """How a member does whose current version is `version`; a quarantine of another version is over."""
    if row is None:
        return Health.WELL
    if row.quarantined_at is not None and row.version in (0, version):
        return Health.QUARANTINED
    if row.cool_until is not None and row.cool_until > now:
        return Health.RESTING
    return Health.WELL


def after_report(
    pool: PoolRecord,
    member: str,
    *,
    known: Mapping[str, MemberRecord],
    event: ReportEvent,
    version: int,
    current: int,
    retry_after_s: float | None,
    worker: str,
    now: datetime,
) -> MemberRecord | None:
    """The member's row after a worker reported of its `version`; None: the report changes nothing.

    known: the rows of the pool's members. current: the version of the member that is current.
    """
    row = known.get(member)
    if event is ReportEvent.OK or health(row, current, now) is Health.QUARANTINED:
        return None
    if row is None:
        row = MemberRecord(
            rev=0, token=pool.token, member=member, cool_until=None, quarantined_at=None, reason="", changed_at=now
        )
    if event is ReportEvent.REJECTED:
        if version != current:
            return None
        counts = row.version == version and now - row.changed_at <= REMEMBERED
        rejected_by = tuple(sorted({worker, *(row.rejected_by if counts else ())}))
        row = msgspec.structs.replace(
            row,
            rev=row.rev + 1,
            changed_at=now,
            quarantined_at=None,
            version=version,
            rejected_by=rejected_by,
        )
        if len(rejected_by) >= pool.witnesses:
            return msgspec.structs.replace(
                row, quarantined_at=now, cool_until=None, rested_by="", reason="rejected by " + ", ".join(rejected_by)
            )
        retry_after_s = None
    else:
        row = msgspec.structs.replace(row, rev=row.rev + 1)
    asked = timedelta(seconds=pool.cool_down_s if retry_after_s is None else retry_after_s)
    until = now + min(asked, REST_MAX)
    longer = row.cool_until is None or until > row.cool_until
    if longer and _may_rest(pool, member, known, worker, now):
        return msgspec.structs.replace(row, cool_until=until, rested_by=worker)
    return row if event is ReportEvent.REJECTED else None


def _may_rest(pool: PoolRecord, member: str, known: Mapping[str, MemberRecord], worker: str, now: datetime) -> bool:
    resting = sum(
        row.rested_by == worker and row.cool_until is not None and row.cool_until > now
        for name, row in known.items()
        if name != member and name in pool.members
    )
    return resting < max(1, len(pool.members) // 2)
