"""What this replica knows of pools: their rows, how their members do, and who wants to hear that a place may be free.

Who gets a place is decided in `line`; whether a member may be leased in `policy.health`; whose value a lease has in
`following`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from broker.leases.heads import Heads
from broker.policy.health import Health, health
from storage.errors import Damaged
from storage.port import Storage
from storage.records import MemberRecord, PoolRecord

if TYPE_CHECKING:
    from broker.authority.book import Book

log = structlog.get_logger()


class Pools:
    """Followed by the change feed, like everything here that is not asked for each time.

    closing: nobody waits here any more, for this replica stops.
    """

    def __init__(self, *, book: Book[PoolRecord], storage: Storage) -> None:
        self.book = book
        self.closing = False
        self._members: dict[str, dict[str, MemberRecord]] = {}
        self._storage = storage
        self._reading = asyncio.Lock()
        self._stirred: dict[str, asyncio.Event] = {}
        self._waits: dict[str, dict[str, None]] = {}

    def of_member(self, token: str) -> list[str]:
        """The pools that lease this token's value under a name of their own."""
        return [pool.token for pool in self.book if token in pool.members and token != pool.token]

    async def load(self, tokens: Iterable[str]) -> None:
        """Read how the members of these pools do. Raises what storage raises."""
        for token in tokens:
            # One after the other, so that what was read later is what stays.
            async with self._reading:
                page = await self._storage.select(MemberRecord, prefix=(token,))
                self._members[token] = {row.member: row for row in page.records}
            self.stir(token)

    async def reload(self) -> None:
        """Read again how the members of every pool do. Raises what storage raises."""
        await self.follow([pool.token for pool in self.book])

    async def follow(self, tokens: Iterable[str]) -> None:
        """As `load`, but a pool with a damaged row is not known: whoever asks for it hears so, and nobody else."""
        for token in tokens:
            try:
                await self.load((token,))
            except Damaged as error:
                self._members.pop(token, None)
                log.warning("pool_member_damaged", pool=token, error=str(error))

    def known(self, token: str) -> Mapping[str, MemberRecord] | None:
        """The rows of those members of the pool that had trouble; None: that has to be loaded."""
        return self._members.get(token)

    def health(self, token: str, member: str, heads: Heads, now: datetime) -> Health:
        """How a member does, as far as is known here; a quarantine counts while its value's version is not known."""
        row = (self.known(token) or {}).get(member)
        head = heads.known.get(member)
        version = head.token.current if head is not None else 0 if row is None else row.version
        return health(row, version, now)

    def changed(self, row: MemberRecord) -> None:
        """This row is durable."""
        self._members.setdefault(row.token, {})[row.member] = row
        self.stir(row.token)

    def line(self, token: str, stirred: asyncio.Event | None) -> None:
        """Set this event when a place of the pool may be free; None: nobody waits for one any more."""
        if stirred is None:
            self._stirred.pop(token, None)
        else:
            self._stirred[token] = stirred

    def waits(self, session: str, token: str) -> None:
        """This session waits for a place of the pool."""
        self._waits.setdefault(session, {})[token] = None

    def stir(self, token: str) -> None:
        """A place of this pool may be free, or somebody has left its line."""
        if (stirred := self._stirred.get(token)) is not None:
            stirred.set()

    def left(self, session: str) -> None:
        """This session is gone."""
        for token in self._waits.pop(session, ()):
            self.stir(token)

    def turn_away(self) -> None:
        """Let nobody wait any longer: another replica has a place in line for them."""
        self.closing = True
        for stirred in self._stirred.values():
            stirred.set()
