"""What happened to leases between two instants, in order of time, page by page out of their rows.

A row tells of its lease's whole life, and rows are walked in the order of granting. So one page is the earliest events
behind the page before, out of the rows that were granted before the last of them. Where the next page has to begin is
carried along: the oldest lease that has more to tell. Memory holds two pages of events, however many leases
there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from broker.errors import BadRequest
from broker.ids import first_id_at
from broker.leases.history import Event, events_of
from broker.leases.listing import LONGEST, only, select_leases
from storage.port import PAGE_MAX, Storage
from storage.table import Key

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Place = tuple[int, str, int]
"""Where an event stands: its microsecond, its lease, and its number among those of the lease. Total, and stable."""


class TimelinePage(NamedTuple):
    """next: what the following page is asked for with; None: that was the last one."""

    events: list[Event]
    next: Key | None


@dataclass(kw_only=True, slots=True)
class _Earliest:
    """The earliest events seen so far. oldest_over: the oldest lease with one that is later than those; None: none."""

    limit: int
    placed: list[tuple[_Place, Event]] = field(default_factory=list)
    oldest_over: str | None = None

    def add(self, place: _Place, event: Event) -> None:
        """Take one more; twice as many as are wanted are kept at most."""
        self.placed.append((place, event))
        if len(self.placed) >= 2 * self.limit:
            self.cut()

    def cut(self) -> None:
        """Put them in order, and let go of what is later than the wanted ones."""
        self.placed.sort(key=lambda each: each[0])
        for (_, lease, _), _ in self.placed[self.limit :]:
            self.over(lease)
        del self.placed[self.limit :]

    def over(self, lease: str) -> None:
        """This lease has something to tell that is later."""
        self.oldest_over = lease if self.oldest_over is None else min(lease, self.oldest_over)

    def end_before(self, lease: str) -> bool:
        """Whether nothing that this lease, and those behind it, have to tell can be among them.

        By its id, not by when it was granted: a value may have been made for it before, which takes a while.
        """
        if len(self.placed) < self.limit:
            return False
        self.cut()
        return lease >= _first_after(self.placed[-1][1].at)


async def timeline(
    storage: Storage,
    *,
    token: str | None,
    worker: str | None,
    since: datetime,
    until: datetime,
    now: datetime,
    after: Key | None,
    limit: int,
) -> TimelinePage:
    """One page of what happened from `since` to `until`, both included, to this worker's leases of this token's value.

    after: `next` of the page before. BadRequest: it is none. Reads the rows that were granted since the oldest lease
    that had more to tell, for the first page those of the `LONGEST` before `since`. What happens while pages are read
    may be missing in them.
    """
    behind, begin = ((-1, "", 0), first_id_at(since - LONGEST)) if after is None else _read(after)
    beyond = _first_after(until)
    earliest = _Earliest(limit=limit)
    at: Key | None = (begin,)
    while at is not None:
        page = await select_leases(storage, only(worker), token=token, after=at, limit=PAGE_MAX)
        at = page.next
        for row in page.records:
            if row.lease >= beyond:
                at = None
                break
            if earliest.end_before(row.lease):
                earliest.over(row.lease)
                at = None
                break
            for number, event in enumerate(events_of(row, now)):
                place = (_micros(event.at), row.lease, number)
                if place > behind and since <= event.at <= until:
                    earliest.add(place, event)
    earliest.cut()
    events = [event for _, event in earliest.placed]
    if earliest.oldest_over is None:
        return TimelinePage(events, None)
    return TimelinePage(events, (*earliest.placed[-1][0], _before(earliest.oldest_over)))


def _first_after(at: datetime) -> str:
    """The smallest id of the millisecond behind this one."""
    return first_id_at(at + timedelta(milliseconds=1))


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _before(lease: str) -> str:
    """The text that this id, and no smaller one, comes behind: ids are hexadecimal."""
    return f"{int(lease, 16) - 1:0{len(lease)}x}"


def _read(after: Key) -> tuple[_Place, str]:
    match after:
        case (int(at), str(lease), int(number), str(begin)):
            return (at, lease, number), begin
        case _:
            raise BadRequest("cursor: this is not one of a timeline; send `next` of the page before, or none")
