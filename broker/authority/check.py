"""Compare what storage holds with what this replica verified, row by row, and say everything that is wrong.

Refusing to serve on the first wrong row is `follow`'s part; this one is for people who must mend it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from broker.authority.errors import RowForged, TableAltered, TableRolledBack, row_name
from broker.authority.follow import Follower
from broker.authority.ledger import Ledger
from broker.authority.reader import Reader
from broker.errors import Tampered
from storage.records import TokenRecord, VersionRecord
from storage.table import Key, Record

PROBLEMS_MAX: Final = 1000
"""Most problems reported of one table."""
_PAGE: Final = 100
"""Rows a page: a version holds up to 64 KiB, so this bounds a page to about 6.4 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong. `key` is empty if it concerns the whole table."""

    table: str
    key: Key
    message: str


class Checker:
    """Look for problems. Every method may raise Unavailable."""

    __slots__ = ("_follower", "_reader")

    def __init__(self, *, reader: Reader, follower: Follower) -> None:
        self._reader = reader
        self._follower = follower

    async def suspects(self, ledger: Ledger) -> set[Key]:
        """Keys under which storage may differ from the ledger; changes by others while reading are among them."""
        seen: set[Key] = set()
        differing: set[Key] = set()
        try:
            async with aclosing(self._reader.every(ledger.kind)) as rows:
                async for row in rows:
                    if row.key in seen or ledger.rows.get(row.key) != row:
                        differing.add(row.key)
                    seen.add(row.key)
        except RowForged:  # a row that cannot be read hides those behind it; `judge` meets it again and reports it
            return differing
        return differing.union(ledger.rows.keys() - seen)

    async def judge(
        self, ledger: Ledger, suspects: Collection[Key], since: int
    ) -> tuple[list[Problem], frozenset[Key]]:
        """Catch up with storage under these keys; what cannot be taken over is a problem. Also gives the keys altered.

        The caller lets nothing else use the ledger meanwhile.
        """
        try:
            return [], await self._follower.follow(ledger, suspects, since)
        except (RowForged, TableAltered, TableRolledBack) as error:
            key = error.key if isinstance(error, RowForged) else ()
            problems = {(key, str(error)): None}
            for suspect in sorted(suspects, key=str)[:PROBLEMS_MAX]:
                for message in await self._difference(ledger, suspect):
                    problems[suspect, message] = None
            return [Problem(table=ledger.kind.table.name, key=key, message=text) for key, text in problems], frozenset()

    async def forged(self, kinds: Sequence[type[Record]] = (TokenRecord, VersionRecord)) -> list[Problem]:
        """Every row of these kinds without a valid MAC, at most `PROBLEMS_MAX` of each kind."""
        problems: list[Problem] = []
        for kind in kinds:
            problems += await self._forged(kind)
        return problems

    async def _forged(self, kind: type[Record]) -> list[Problem]:
        problems: list[Problem] = []
        try:
            async with aclosing(self._reader.every(kind, _PAGE)) as rows:
                async for row in rows:
                    problems += self._verdict(row)
                    if len(problems) == PROBLEMS_MAX:
                        break
        except Tampered as error:
            problems.append(Problem(table=kind.table.name, key=(), message=str(error)))
        return problems

    def _verdict(self, row: Record) -> list[Problem]:
        try:
            self._reader.verify(row)
        except RowForged as error:
            return [Problem(table=row.table.name, key=row.key, message=str(error))]
        return []

    async def _difference(self, ledger: Ledger, key: Key) -> list[str]:
        known = ledger.rows.get(key)
        name = row_name(ledger.kind.table.name, key)
        try:
            stored = (await self._reader.rows(ledger.kind, [key])).get(key)
        except RowForged as error:
            return [str(error)]
        if stored == known:
            return []
        if stored is None:
            return [f"{name} is missing"]
        if known is None:
            return [f"{name} was put back or planted: this replica knows no such row"]
        return [f"{name} is at revision {stored.rev}, this replica verified another one, revision {known.rev}"]
