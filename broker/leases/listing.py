"""Who holds what: now, or at an instant. Answers come from the record, so they hold for every replica."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from broker.clock import Clock
from broker.ids import first_id_at
from storage.port import PAGE_MAX, Page, Storage
from storage.records import LeaseRecord
from storage.table import Key

LONGEST = timedelta(days=31)
"""The longest maximum TTL of a grant: nothing granted earlier than this before an instant was live at it."""


async def list_leases(
    storage: Storage,
    clock: Clock,
    *,
    token: str | None = None,
    worker: str | None = None,
    at: datetime | None = None,
    include_ended: bool = False,
    after: Key | None = None,
    limit: int = PAGE_MAX,
) -> Page[LeaseRecord]:
    """One page, in the order of granting, of the leases live now, of those live at `at`, or of all on record.

    Ids are ordered by time, so a walk begins and ends where leases of that time stand. A page may hold fewer than
    `limit` records, even none, and still not be the last: `next` alone says so.
    """
    where: dict[str, str | int | None] = {}
    if token is not None:
        where["token"] = token
    if worker is not None:
        where["worker"] = worker
    keep: Callable[[LeaseRecord], bool] = _all
    behind: str | None = None
    if at is not None:
        after = after or (first_id_at(at - LONGEST),)
        behind, keep = first_id_at(at + timedelta(milliseconds=1)), _live_at(at)
    elif not include_ended:
        where["state"] = "live"
        after, keep = after or (first_id_at(clock.now() - LONGEST),), _live_at(clock.now())
    page = await storage.select(LeaseRecord, where=where, after=after, limit=limit)
    over = behind is not None and bool(page.records) and page.records[-1].lease >= behind
    records = [record for record in page.records if keep(record)]
    if at is not None:
        # It was live then, whatever became of it; its version is the one that was pushed last.
        records = [msgspec.structs.replace(record, state="live") for record in records]
    return Page(records=records, next=None if over else page.next)


def _all(record: LeaseRecord) -> bool:
    return True


def _live_at(at: datetime) -> Callable[[LeaseRecord], bool]:
    """Whether a lease was live at the instant: granted by then, and neither expired nor ended."""

    def live(record: LeaseRecord) -> bool:
        end = record.expires_at if record.ended_at is None else min(record.ended_at, record.expires_at)
        return record.granted_at <= at < end

    return live
