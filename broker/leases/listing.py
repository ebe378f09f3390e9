"""Who holds what: now, or at an instant. Answers come from the record, so they hold for every replica.

What happened between two instants is `timeline`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.errors import BadRequest
from broker.ids import first_id_at
from broker.leases.history import as_of, live_at
from broker.spans import show_instant
from storage.port import PAGE_MAX, Page, Storage
from storage.records import LeaseRecord
from storage.table import Key

LONGEST = timedelta(days=31, minutes=1)
"""The longest maximum TTL of a grant, and as long as a value may take that is made for a lease that has its id by then:
no lease whose id is older than this before an instant was live at it."""


def check_on_record(field: str, at: datetime, *, now: datetime, retention: timedelta) -> None:
    """Let an instant pass of which the record can tell. BadRequest: it is to come, or ended leases of then are gone."""
    if at > now:
        raise BadRequest(
            f"{field}: {show_instant(at)} is after the broker's time {show_instant(now)}; name an earlier one"
        )
    if at < now - retention:
        raise BadRequest(
            f"{field}: leases that ended before {show_instant(now - retention)} are not on record any more "
            "(leases.retention); name a later instant, or ask the audit log"
        )


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

    token: leases of it, and those of pools that have its value.
    at: each lease is shown as it stood then (`history.as_of`). Ids are ordered by time, so a walk begins and ends where
    leases of that time stand: it reads what was granted in the `LONGEST` before, whether it lasted or not. A page may
    hold fewer than `limit` records, even none, and still not be the last: `next` alone says so.
    """
    where = only(worker)
    keep: Callable[[LeaseRecord], bool] = _all
    behind: str | None = None
    if at is not None:
        after = after or (first_id_at(at - LONGEST),)
        behind, keep = first_id_at(at + timedelta(milliseconds=1)), lambda record: live_at(record, at)
    elif not include_ended:
        where["state"] = "live"
        now = clock.now()
        after, keep = after or (first_id_at(now - LONGEST),), lambda record: live_at(record, now)
    page = await select_leases(storage, where, token=token, after=after, limit=limit)
    over = behind is not None and bool(page.records) and page.records[-1].lease >= behind
    records = [record for record in page.records if keep(record)]
    if at is not None:
        records = [as_of(record, at) for record in records]
    return Page(records=records, next=None if over else page.next)


def only(worker: str | None) -> dict[str, str | int | None]:
    """What a selection asks of rows: that they are of this worker, where one is named."""
    return {} if worker is None else {"worker": worker}


async def select_leases(
    storage: Storage, where: Mapping[str, str | int | None], *, token: str | None, after: Key | None, limit: int
) -> Page[LeaseRecord]:
    """One page as `where` says, in the order of granting. token: only leases that have its value, under whatever name.

    What was leased from a pool names the member on its row, so it is found also when that has left the pool since.
    """
    if token is None:
        return await storage.select(LeaseRecord, where=where, after=after, limit=limit)
    pages = [
        await storage.select(LeaseRecord, where={**where, column: token}, after=after, limit=limit)
        for column in ("token", "member")
    ]
    # Behind the last row of a page that is not the last, rows of the other one may have others between them.
    ends = [page.records[-1].lease for page in pages if page.next is not None]
    found = {row.lease: row for page in pages for row in page.records if not ends or row.lease <= min(ends)}
    records = [found[lease] for lease in sorted(found)]
    more = bool(ends) or len(records) > limit
    return Page(records=records[:limit], next=(records[:limit][-1].lease,) if more else None)


def _all(record: LeaseRecord) -> bool:
    return True
