"""Show pools: how their members do, who holds a place, who waits for one. Changing them is in `pools`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.admin.pools import PoolAdmin
from broker.admin.ports import LeaseDesk
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.clock import Clock
from broker.policy.health import Health, health
from storage.port import PAGE_MAX
from storage.records import LeaseRecord, MemberRecord, PoolRecord, TicketRecord
from storage.table import Key

SHOWN_MAX: Final = 1000
"""Leases and turns that are shown of one pool, the oldest of each; all are counted."""
COUNTED_MAX: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberStatus:
    """A member, how many live leases have its value, and how it does. health: None where it has no value to lease."""

    member: str
    leases: int
    health: Health | None
    row: MemberRecord | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """A pool at this moment, on all replicas."""

    pool: PoolRecord
    members: Sequence[MemberStatus]
    leases: Sequence[LeaseRecord]
    waiting: Sequence[TicketRecord]
    waiting_count: int


class PoolBook:
    """Reads; changes nothing."""

    def __init__(self, *, pools: PoolAdmin, book: TokenBook, stored: Stored, leases: LeaseDesk, clock: Clock) -> None:
        self._pools = pools
        self._book = book
        self._stored = stored
        self._leases = leases
        self._clock = clock

    async def status(self, name: str) -> PoolStatus:
        """The pool as it is now; looks at every live lease, as a list of leases does. NotFound."""
        pool = self._pools.get(name)
        leases = await self._live(name)
        counts = Counter(lease.member for lease in leases)
        rows = {row.member: row for row in (await self._stored.select(MemberRecord, prefix=(name,))).records}
        members = [await self._member(each, counts[each], rows.get(each)) for each in pool.members]
        now = self._clock.now()
        tickets = await self._stored.select(TicketRecord, prefix=(name,), limit=SHOWN_MAX)
        count = await self._stored.count(TicketRecord, index="key", prefix=(name,), limit=COUNTED_MAX)
        return PoolStatus(
            pool=pool,
            members=members,
            leases=leases[:SHOWN_MAX],
            waiting=[row for row in tickets.records if row.until > now],
            waiting_count=count,
        )

    async def _member(self, name: str, leases: int, row: MemberRecord | None) -> MemberStatus:
        token = await self._book.find(name)
        if token is None or token.disabled or not token.current:
            return MemberStatus(member=name, leases=leases, health=None, row=row)
        how = health(row, token.current, self._clock.now())
        return MemberStatus(member=name, leases=leases, health=how, row=row)

    async def _live(self, name: str) -> list[LeaseRecord]:
        found: list[LeaseRecord] = []
        after: Key | None = None
        while True:
            page = await self._leases.list_leases(
                token=name, worker=None, at=None, include_ended=False, after=after, limit=PAGE_MAX
            )
            found += [lease for lease in page.records if lease.token == name]
            after = page.next
            if after is None:
                return found
