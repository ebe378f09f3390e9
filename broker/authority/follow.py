"""Bring a ledger up to what storage holds, or refuse: loading, catching up with other replicas.

Rows and manifest are read one after the other while others commit, so an honest reader may see them from different
moments. Two rules keep apart what is only late and what is wrong. A manifest read before and after the rows, and
equal, makes them one moment, since no commit to a table leaves its manifest alone. And a table is called altered only
after it stood still, the change feed was read to its end, pauses gave late changes time to show, and the whole table
was read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Final

from broker.authority.errors import TableAltered
from broker.authority.ledger import Ledger
from broker.authority.reader import Reader
from broker.clock import Clock
from broker.errors import Unavailable
from storage.table import Key

PAUSES_S: Final = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""How long to pause before each look. On PostgreSQL a change shows in the feed only after older transactions ended."""


class Follower:
    """Settle ledgers against storage. Nothing is taken before it is verified; cancelling leaves a ledger as it was.

    Every method may raise Unavailable, and the `Tampered` errors of `broker.authority.errors`.
    """

    __slots__ = ("_clock", "_reader")

    def __init__(self, *, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    async def load(self, blank: Ledger) -> Ledger:
        """Fill a blank ledger with the whole table, while others may be writing to it."""
        since = await self._reader.position()
        async with contextlib.aclosing(self._reader.every(blank.kind)) as rows:
            async for row in rows:
                self._reader.verify(row)
                blank.assume(row)
        await self._settle(blank, (), since)
        return blank

    async def follow(self, ledger: Ledger, keys: Collection[Key], since: int) -> frozenset[Key]:
        """Take over what storage holds under `keys`, and under all keys that the feed names behind position `since`.

        Returns the keys whose rows differ from before.
        """
        try:
            return await self._settle(ledger, keys, since)
        except TableAltered:
            # Changes that the feed no longer holds look the same as tampering, until the whole table has been read.
            with contextlib.suppress(TableAltered):
                return ledger.adopt(await self.load(ledger.blank()))
            raise

    async def _settle(self, ledger: Ledger, keys: Collection[Key], since: int) -> frozenset[Key]:
        wanted, table = set(keys), ledger.kind.table.name
        altered: TableAltered | None = None
        for pause_s in PAUSES_S:
            await self._clock.sleep(pause_s)
            manifest = await self._reader.manifest(table)
            wanted |= await self._reader.changed(table, since)
            found = await self._reader.rows(ledger.kind, wanted)
            if await self._reader.manifest(table) != manifest:
                altered = None
                continue
            try:
                step = ledger.match(manifest, wanted, found)
            except TableAltered as error:
                altered = error
                continue
            ledger.take(step)
            return step.keys
        raise altered or Unavailable(f"table {table} changes faster than it can be read; retry")
