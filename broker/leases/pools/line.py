"""Who is next at a pool: reads which places are free, lets requests have them in the order of asking, or wait.

One task for each pool that somebody asks for here; what comes while it reads is served by the next reading. A place is
taken by the grant's own commit, which writes the seat, so that of two replicas that choose the same one gets it and the
other is back in line. Of those that wait, all replicas read the same tickets, so only the foremost take what is free.

All of one round stands here together, for it is right only as a whole; which pools have a line is `lines`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final
from zlib import crc32

from broker.clock import Clock
from broker.errors import BrokerError, Gone, RateLimited, Tampered, Unavailable
from broker.ids import time_ordered_id
from broker.leases.bugs import told
from broker.leases.context import Context
from broker.leases.pools.places import SeatName, Seats, Spot, any_spots, free_spots
from broker.leases.pools.turn import Turn, TurnState
from broker.policy.health import Health, health
from broker.replicas.skew import REFUSE_S
from storage.errors import Conflict, Refused
from storage.port import COUNT_MAX, PAGE_MAX, Commit, Delete
from storage.records import LeaseRecord, PoolRecord, SeatRecord, TicketRecord
from storage.table import Key

if TYPE_CHECKING:
    from broker.leases.granting import Grant

TICKETS_MAX: Final = 10_000
"""Turns in the line of one pool, on all replicas; one more is refused."""
POLL_S: Final = 0.25
"""How long a place that another replica's worker gave back may go unnoticed here."""
_ROUND_S: Final = 5.0
_CHUNK: Final = 500

Again = Callable[["Grant", BrokerError | None], None]


class Line:
    """The requests of this replica for one pool."""

    def __init__(self, *, token: str, context: Context, clock: Clock, again: Again) -> None:
        self._token = token
        self._context = context
        self._clock = clock
        self._again = again
        self._waiting: dict[Grant, Turn] = {}
        self._placed: dict[Grant, Turn] = {}
        self._left: dict[str, TicketRecord] = {}
        self._start = crc32(context.instance.encode())
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, grant: Grant) -> None:
        """Take in a request; also one that had a place and did not get it, which keeps its turn."""
        turn = grant.turn
        if turn is None:
            now = self._clock.now()
            until = self._clock.monotonic() + grant.wait_s
            turn = grant.turn = Turn(turn_id=time_ordered_id(now), asked_at=now, until=until)
        turn.wait()
        self._placed.pop(grant, None)
        self._waiting[grant] = turn
        self._context.pools.waits(grant.holder.session, self._token)
        self._stirred.set()

    async def run(self) -> None:
        """Serve until nobody is left."""
        pools = self._context.pools
        pools.line(self._token, self._stirred)
        try:
            while self._waiting or self._placed or self._left:
                self._stirred.clear()
                try:
                    async with asyncio.timeout(_ROUND_S):
                        await self._round()
                except Exception as error:  # noqa: BLE001 - it is told to those who wait; raised, it would end the desk
                    self._fail_now(told(error))
                if self._waiting or self._placed or self._left:
                    await self._pause()
        finally:
            pools.line(self._token, None)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._stirred.wait()
        except TimeoutError:
            return

    async def _round(self) -> None:
        self._settle()
        await self._remove_tickets()
        if not self._waiting:
            return
        if self._context.pools.closing:
            self._refuse_all(Unavailable("this replica stops; ask again after reconnecting", retry_after_s=0.5))
            return
        pool = self._context.pools.book.get((self._token,))
        if pool is None:
            self._refuse_all(Unavailable("the pool has just been made or deleted; ask again", retry_after_s=0.5))
            return
        members = await self._well(pool)
        if members:
            await self._serve(pool, members)
        await self._queue(pool)

    # -- who is there ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let go of who is served, has failed, has hung up, or has a lease by now."""
        for grant, turn in list(self._placed.items()):
            if turn.state is not TurnState.PLACED:
                del self._placed[grant]
                if turn.state is TurnState.OVER:
                    self._leave(turn)
        now = self._clock.now()
        for grant, turn in list(self._waiting.items()):
            held = grant.holder.leases.get(grant.place)
            if grant.holder.closed:
                self._dismiss(grant, turn, Gone("the session is closed"))
            elif held is not None and held.record.expires_at > now:
                self._dismiss(grant, turn, None)

    def _dismiss(self, grant: Grant, turn: Turn, error: BrokerError | None) -> None:
        del self._waiting[grant]
        self._leave(turn)
        self._again(grant, error)

    def _leave(self, turn: Turn) -> None:
        if turn.ticket is not None:
            self._left[turn.id] = turn.ticket
            turn.ticket = None

    def _refuse_all(self, error: BrokerError) -> None:
        for grant, turn in list(self._waiting.items()):
            self._dismiss(grant, turn, error)

    def _fail_now(self, error: BrokerError) -> None:
        """What is needed cannot be read: whoever does not wait hears of it, the others keep their turns."""
        mono = self._clock.monotonic()
        for grant, turn in list(self._waiting.items()):
            if turn.until <= mono:
                self._dismiss(grant, turn, error)

    async def _remove_tickets(self) -> None:
        storage = self._context.storage
        gone = list(islice(self._left.values(), _CHUNK))
        if not gone:
            return
        try:
            await storage.commit(Commit(deletes=[Delete(TicketRecord, row.key, row.rev) for row in gone]))
        except Conflict:
            # Some were pruned, or buried with a replica of this name.
            for row in gone:
                with contextlib.suppress(Conflict):
                    await storage.commit(Commit(deletes=[Delete(TicketRecord, row.key, row.rev)]))
        for row in gone:
            self._left.pop(row.ticket, None)

    # -- what there is -----------------------------------------------------------------------------------------

    async def _well(self, pool: PoolRecord) -> list[str]:
        """The members that may be leased now. Empty: all rest, or whoever waits has been refused."""
        context, now = self._context, self._clock.now()
        await self._load_heads(pool)
        if context.pools.known(self._token) is None:
            await context.pools.load((self._token,))
        known = context.pools.known(self._token) or {}
        well: list[str] = []
        rests: list[datetime] = []
        for member in pool.members:
            head = context.heads.known.get(member)
            if head is None or head.token.disabled or head.version is None:
                continue
            row = known.get(member)
            how = health(row, head.version.version, now)
            if how is Health.WELL:
                well.append(member)
            elif how is Health.RESTING and row is not None and row.cool_until is not None:
                rests.append(row.cool_until)
        if well:
            return well
        if not rests:
            self._refuse_all(
                Unavailable(
                    f"no member of {self._token} may be leased: all are quarantined or disabled; ask an operator",
                    retry_after_s=30.0,
                )
            )
            return []
        rest_s = max(0.1, (min(rests) - now).total_seconds())
        limited = RateLimited(
            f"every member of {self._token} that may be leased rests; ask again later", retry_after_s=rest_s
        )
        self._fail_now(limited)
        return []

    async def _load_heads(self, pool: PoolRecord) -> None:
        heads = self._context.heads
        unknown = [member for member in pool.members if member not in heads.known]
        if not unknown:
            return
        try:
            await heads.load(unknown)
        except (Tampered, Refused):
            # One row is bad; the other members can be leased all the same.
            for member in unknown:
                with contextlib.suppress(Tampered, Refused):
                    await heads.load([member])

    async def _seats(self) -> Seats:
        context = self._context
        flying = self._flying()  # before anything is read: what lands meanwhile may be missing from what is read
        rows: dict[SeatName, SeatRecord] = {}
        after: Key | None = None
        while True:
            page = await context.storage.select(SeatRecord, prefix=(self._token,), after=after)
            rows.update(((row.member, row.number), row) for row in page.records)
            after = page.next
            if after is None:
                break
        by_lease = context.holdings.by_lease
        # Of a connection that ends meanwhile, the lease lives on; so what is held now counts as live, whatever follows.
        here = {row.lease for row in rows.values() if row.lease in by_lease}
        leases = await context.read_leases([row.lease for row in rows.values() if row.lease not in here])
        now = self._clock.now()
        live = {*flying, *self._flying()}
        over: dict[SeatName, LeaseRecord] = {}
        for name, row in rows.items():
            lease = leases.get(row.lease)
            if row.lease in here or row.lease in by_lease:
                live.add(name)
            elif lease is not None and lease.state == "live":
                if self._ran_out(lease, now):
                    over[name] = lease
                else:
                    live.add(name)
        return Seats(rows=rows, live=live, over=over)

    async def _forget(self, seats: Seats, pool: PoolRecord) -> None:
        """Let go of free seats that the pool has no more, as when it allowed more leases: each is read every time."""
        gone = [
            row
            for name, row in seats.rows.items()
            if (row.number >= pool.leases_max or row.member not in pool.members)
            and name not in seats.live
            and name not in seats.over
        ][:_CHUNK]
        if gone:
            with contextlib.suppress(Conflict):
                await self._context.storage.commit(
                    Commit(deletes=[Delete(SeatRecord, row.key, row.rev) for row in gone])
                )

    def _ran_out(self, lease: LeaseRecord, now: datetime) -> bool:
        """What another replica may hold is given as much time as clocks may differ."""
        late_s = 0.0 if lease.instance == self._context.instance else REFUSE_S
        return lease.expires_at + timedelta(seconds=late_s) <= now

    def _flying(self) -> list[SeatName]:
        """Places that were given out here and are not known to be taken or let go."""
        placed = (turn.spot for turn in self._placed.values() if turn.state is TurnState.PLACED)
        return [spot.name for spot in placed if spot is not None]

    async def _ahead(self) -> list[TicketRecord]:
        """The foremost turns on record that still count, without those that have a place already.

        The record decides: a turn that was written after all has its ticket, one whose ticket is gone gets another.
        """
        page = await self._context.storage.select(TicketRecord, prefix=(self._token,), limit=PAGE_MAX)
        now, rows = self._clock.now(), {row.ticket: row for row in page.records}
        waiting = {turn.id for turn in self._waiting.values()}
        placed = {turn.id for turn in self._placed.values()}
        for turn in self._waiting.values():
            if page.next is None or turn.id <= page.records[-1].ticket:
                turn.ticket = rows.get(turn.id)
        ahead: list[TicketRecord] = []
        for row in page.records:
            if row.instance == self._context.instance and row.ticket not in waiting:
                if row.ticket not in placed:
                    self._left[row.ticket] = row  # of an earlier life of this replica, or written after all
            elif row.until > now:
                ahead.append(row)
        return ahead

    # -- who gets it -------------------------------------------------------------------------------------------

    async def _serve(self, pool: PoolRecord, members: Sequence[str]) -> None:
        if not pool.leases_max:
            loads = self._context.holdings.loads(members)
            loads.update(member for member, _ in self._flying())
            self._give(self._first_of_each(), any_spots(members, loads))
            return
        seats = await self._seats()
        await self._forget(seats, pool)
        if next(free_spots(pool, members, seats), None) is None:
            return
        ahead = await self._ahead()
        reserved = list(islice(free_spots(pool, members, seats), len(ahead)))
        mine = {turn.id: grant for grant, turn in self._waiting.items()}
        for ticket, spot in zip(ahead, reserved, strict=False):
            if (grant := mine.get(ticket.ticket)) is not None:
                self._give([grant], iter([spot]))
        newcomers = [grant for grant in self._first_of_each() if self._waiting[grant].ticket is None]
        names = [spot.name for spot in reserved]
        self._give(newcomers, free_spots(pool, members, seats, reserved=names, start=self._start))

    def _first_of_each(self) -> list[Grant]:
        """One request of each session, in the order of asking: its others get the same lease."""
        firsts: dict[str, Grant] = {grant.holder.session: grant for grant in self._placed}
        for grant in sorted(self._waiting, key=lambda grant: self._waiting[grant].id):
            firsts.setdefault(grant.holder.session, grant)
        return [grant for grant in firsts.values() if grant in self._waiting]

    def _give(self, grants: Iterable[Grant], spots: Iterable[Spot]) -> None:
        for grant, spot in zip(grants, spots, strict=False):
            turn = self._placed[grant] = self._waiting.pop(grant)
            turn.place(spot, tries=grant.attempts)
            self._again(grant, None)

    async def _queue(self, pool: PoolRecord) -> None:
        """Whoever waits stands in line on record; whoever does not, or has for long enough, is refused."""
        mono = self._clock.monotonic()
        over = [(grant, turn) for grant, turn in self._waiting.items() if turn.until <= mono]
        if over:
            what = f"every place of {self._token} is taken or waited for; each member has {pool.leases_max}"
            for grant, turn in over:
                self._dismiss(grant, turn, RateLimited(what, retry_after_s=1.0))
        fresh = [
            (grant, self._waiting[grant]) for grant in self._first_of_each() if self._waiting[grant].ticket is None
        ]
        if not fresh:
            return
        storage = self._context.storage
        there = await storage.count(TicketRecord, prefix=(self._token,), limit=min(TICKETS_MAX, COUNT_MAX))
        room = TICKETS_MAX - there
        for grant, turn in fresh[room:]:
            full = f"{TICKETS_MAX} wait in line for {self._token}, the most; ask again later"
            self._dismiss(grant, turn, RateLimited(full, retry_after_s=5.0))
        for start in range(0, min(room, len(fresh)), _CHUNK):
            await self._stand(fresh[start : min(room, start + _CHUNK)])

    async def _stand(self, fresh: Sequence[tuple[Grant, Turn]]) -> None:
        now, mono = self._clock.now(), self._clock.monotonic()
        rows = [
            TicketRecord(
                token=self._token,
                ticket=turn.id,
                worker=grant.holder.worker,
                session=grant.holder.session,
                instance=self._context.instance,
                asked_at=turn.asked_at,
                until=now + timedelta(seconds=turn.until - mono),
            )
            for grant, turn in fresh
        ]
        try:
            await self._context.storage.commit(Commit(inserts=rows))
        except Conflict:
            # One was written after all by a commit that nobody confirmed.
            for row in rows:
                with contextlib.suppress(Conflict):
                    await self._context.storage.commit(Commit(inserts=[row]))
        for (_, turn), row in zip(fresh, rows, strict=True):
            turn.ticket = row
