"""Which replicas serve a shared database, and whether this machine's clock agrees with the database's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from broker.clock import Clock
from broker.doctor.findings import Finding, failed, ok, warning
from broker.replicas.roll import BEAT_S, SILENT_BEATS, replicas
from broker.replicas.skew import REFUSE_S, WARN_S
from storage.port import Shared, Storage
from storage.records import ReplicaRecord

SILENT: Final = timedelta(seconds=BEAT_S * SILENT_BEATS)


async def serving(storage: Storage) -> list[ReplicaRecord]:
    """The replicas that live, as far as their rows tell by the database's clock; of one that is not shared, none."""
    if not isinstance(storage, Shared):
        return []
    now = await storage.now()
    return [row for row in await replicas(storage) if row.ended_at is None and now - row.seen_at < SILENT]


async def examine_replicas(storage: Storage, living: list[ReplicaRecord], clock: Clock) -> list[Finding]:
    """Findings about a shared database; of another one there are none."""
    if not isinstance(storage, Shared):
        return []
    before = clock.now()
    database = await storage.now()
    after = clock.now()
    named = ", ".join(f"{row.instance} ({row.release})" for row in living) or "none"
    return [ok("replicas", f"serving now: {named}"), *_clock(before, database, after)]


def _clock(before: datetime, database: datetime, after: datetime) -> Iterator[Finding]:
    """The database read its clock between the two: what lies outside is skew."""
    skew = max(before - database, database - after, timedelta()).total_seconds()
    if skew >= REFUSE_S:
        yield failed(
            "clock skew", f"{skew:.1f} s from the database's clock; a replica grants nothing from 5 s on: set it"
        )
    elif skew >= WARN_S:
        yield warning("clock skew", f"{skew:.1f} s from the database's clock: keep both with NTP")
    else:
        yield ok("clock skew", f"within {WARN_S:g} s of the database's clock")
