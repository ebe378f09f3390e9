"""Who holds what: now, or at an instant. Answers come from the record, so they hold for every replica.

What happened between two instants is `timeline`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.errors import BadRequest
from broker.ids import first_id_at
from broker.leases.history import as_of, live_at
from storage.port import PAGE_MAX, Page, Storage
from storage.records import LeaseRecord
from storage.table import Key

LONGEST = timedelta(days=31)
"""The longest maximum TTL of a grant: nothing granted earlier than this before an instant was live at it."""


def check_on_record(field: str, at: datetime, *, now: datetime, retention: timedelta) -> None:
    """Let an instant pass of which the record can tell. BadRequest: it is to come, or ended leases of then are gone."""
    if at > now:
        raise BadRequest(f"{field}: {at.isoformat()} is after the broker's time {now.isoformat()}; name an earlier one")
    if at < now - retention:
        raise BadRequest(
            f"{field}: leases that ended before {(now - retention).isoformat()} are not on record any more "
            "(leases.retention); name a later instant, or ask the audit log"
        )


async def list_leases(
    storage: Storage,
    clock: Clock,
    *,
    token: str | None = None,
    worker: str | None = None,
    member: str | None = None,
    at: datetime | None = None,
    include_ended: bool = False,
    after: Key | None = None,
    limit: int = PAGE_MAX,
) -> Page[LeaseRecord]:
    """One page, in the order of granting, of the leases live now, of those live at `at`, or of all on record.

    member: those of pools that have this token's value.
    at: each lease is shown as it stood then (`history.as_of`). Ids are ordered by time, so a walk begins and ends where
    leases of that time stand: it reads what was granted in the `LONGEST` before, whether it lasted or not. A page may
    hold fewer than `limit` records, even none, and still not be the last: `next` alone says so.
    """
    where = only(token, worker, member)
    keep: Callable[[LeaseRecord], bool] = _all
    behind: str | None = None
    if at is not None:
        after = after or (first_id_at(at - LONGEST),)
        behind, keep = first_id_at(at + timedelta(milliseconds=1)), lambda record: live_at(record, at)
    elif not include_ended:
        where["state"] = "live"
        now = clock.now()
        after, keep = after or (first_id_at(now - LONGEST),), lambda record: live_at(record, now)
    page = await storage.select(LeaseRecord, where=where, after=after, limit=limit)
    over = behind is not None and bool(page.records) and page.records[-1].lease >= behind
    records = [record for record in page.records if keep(record)]
    if at is not None:
        records = [as_of(record, at) for record in records]
    return Page(records=records, next=None if over else page.next)


def only(token: str | None, worker: str | None, member: str | None = None) -> dict[str, str | int | None]:
    """What a selection asks of rows: that they are of this token, worker and member, where one is named."""
    named = {"token": token, "worker": worker, "member": member}
    return {name: value for name, value in named.items() if value is not None}


def _all(record: LeaseRecord) -> bool:
    return True
