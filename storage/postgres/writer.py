"""Everything that is committed: a group of calls becomes one statement, and so one round trip and one transaction.

Queueing calls into groups is `storage.group_commit`'s business. A statement of its own is a transaction of its own, so
no lock is held while a packet travels: a replica that is frozen in the middle of a commit holds up nobody. If the
group cannot be written together (two calls touch one record, or one of them loses), it is written call by call.
"""
# ruff: noqa: S608 - identifiers come from record types and are quoted; every value is a bound parameter

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from storage.codec import Cell, Row
from storage.errors import Conflict, OutOfBounds, Unavailable
from storage.port import Committed
from storage.postgres.cells import columns_of, escaped, stored
from storage.postgres.connections import Connections
from storage.postgres.statements import Catalog
from storage.work import Outcome, Work, independent, merged

UNKNOWN = "; the commit may or may not exist, whole"


class Writer:
    """The writing side. One group at a time, which keeps a caller's commits in their order."""

    def __init__(self, *, connections: Connections, catalog: Catalog) -> None:
        self._connections = connections
        self._catalog = catalog

    async def commit_group(self, works: Sequence[Work]) -> list[Outcome]:
        """Make the works durable, in order; one outcome each.

        StorageError: nothing of the group was written, or it is unknown; each work is whole in any case.
        """
        if independent(works):
            try:
                return list(await self._write(works))
            except (Conflict, OutOfBounds) as error:
                if len(works) == 1:
                    return [error]
        outcomes: list[Outcome] = []
        for work in works:
            try:
                outcomes.extend(await self._write((work,)))
            except (Conflict, OutOfBounds) as error:
                outcomes.append(error)
            except Unavailable as error:
                # What went before is durable and must be told so; what follows may build on this one.
                return [*outcomes, *([error] * (len(works) - len(outcomes)))]
        return outcomes

    async def _write(self, works: Sequence[Work]) -> list[Committed]:
        statement = _compose(works, self._catalog)
        if statement.empty:
            return [Committed(0, -1)] * len(works)
        sql = statement.sql()
        row = await self._connections.run(lambda each: each.fetchrow(sql, *statement.parameters), unknown=UNKNOWN)
        return _numbered(works, position=row["position"], heads=dict(row["heads"] or ()))


@dataclass(slots=True)
class _Statement:
    """One statement in the making: what is done, what must hold, and the parameters of both."""

    steps: list[str] = field(default_factory=list)
    demands: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)
    numbers: count[int] = field(default_factory=lambda: count(1))
    lines: str = ""
    heads: bool = False

    @property
    def empty(self) -> bool:
        return not self.steps

    def step(self, name: str, sql: str, parameters: Sequence[Any]) -> None:
        self.steps.append(f"{name} AS ({sql})")
        self.parameters.extend(parameters)

    def demand(self, name: str, rows: int) -> None:
        self.demands.append(f"(SELECT count(*) FROM {name}) = ${next(self.numbers)}")
        self.parameters.append(rows)

    def sql(self) -> str:
        """The text; equal for every group of the same kinds of changes, so that it is prepared once."""
        steps = list(self.steps)
        held = " AND ".join(self.demands) or "true"
        position, heads = "0", "NULL::bigint[]"
        if self.lines:
            # The position is taken last: who has taken it makes every replica that announces wait for this commit.
            steps.append(
                f"head AS (UPDATE tokenbroker.feed_head SET position = position + {self.lines} "
                f"WHERE tokenbroker.settled({held}) RETURNING position)"
            )
            steps.append(
                'lines AS (INSERT INTO tokenbroker.feed (position, "table", key) SELECT head.position - '
                f"{self.lines} + v.at, v.name, v.key FROM head, announced AS v RETURNING 1)"
            )
            position = "(SELECT position FROM head)"
            held = "true"
        if self.heads:
            heads = "(SELECT array_agg(ARRAY[log, next]) FROM numbered)"
        told = f", pg_notify('tokenbroker', {position}::text)" if self.lines else ""
        asked = f"tokenbroker.settled({held}), {position} AS position, {heads} AS heads{told}"
        return f"WITH {', '.join(steps)} SELECT {asked}"


def _compose(works: Sequence[Work], catalog: Catalog) -> _Statement:
    statement = _Statement()
    for at, (codec, rows) in enumerate(merged(works, "expects").items()):
        once = list(dict.fromkeys(rows))
        statement.step(f"e{at}", catalog[codec.kind].expect(statement.numbers), _arrays(once))
        statement.demand(f"e{at}", len(once))
    for at, (codec, rows) in enumerate(merged(works, "inserts").items()):
        table = catalog[codec.kind]
        statement.step(f"i{at}", table.insert(statement.numbers) + " RETURNING 1", columns_of(codec, rows))
    for at, (codec, rows) in enumerate(merged(works, "updates").items()):
        table = catalog[codec.kind]
        statement.step(f"u{at}", table.update(codec, statement.numbers) + " RETURNING 1", columns_of(codec, rows))
        statement.demand(f"u{at}", len(rows))
    for at, (codec, rows) in enumerate(merged(works, "deletes").items()):
        table = catalog[codec.kind]
        statement.step(f"d{at}", table.delete(statement.numbers) + " RETURNING 1", _arrays(rows))
        statement.demand(f"d{at}", len(rows))
    _append(statement, works)
    _announce(statement, works)
    return statement


def _arrays(rows: Sequence[Row]) -> list[list[Cell]]:
    """The columns of rows that are a key and a revision."""
    return [[stored(cell) for cell in cells] for cells in zip(*rows, strict=True)]


def _append(statement: _Statement, works: Sequence[Work]) -> None:
    """Number the blocks of each log in order, from the number that the log has come to, and insert them."""
    appends = [work.append for work in works if work.append is not None]
    if not appends:
        return
    totals: Counter[int] = Counter()
    offsets = []
    for append in appends:
        offsets.append(totals[append.log])
        totals[append.log] += append.count
    numbers = statement.numbers
    logs, sizes = next(numbers), next(numbers)
    statement.heads = True
    statement.step(
        "numbered",
        "INSERT INTO tokenbroker.audit_head AS h (log, next) "
        f"SELECT * FROM unnest(${logs}::bigint[], ${sizes}::bigint[]) "
        "ON CONFLICT (log) DO UPDATE SET next = h.next + excluded.next RETURNING log, next",
        [list(totals), list(totals.values())],
    )
    arrays = ", ".join(f"${next(numbers)}::{kind}[]" for kind in ("bigint", "bigint", "bigint", "bytea"))
    statement.step(
        "blocks",
        "INSERT INTO tokenbroker.audit_block (rev, log, seq, count, entries) "
        "SELECT 1, v.log, n.next - v.back, v.count, v.entries "
        f"FROM unnest({arrays}) AS v(log, back, count, entries) JOIN numbered AS n ON n.log = v.log RETURNING 1",
        [
            [append.log for append in appends],
            [totals[append.log] - offset for append, offset in zip(appends, offsets, strict=True)],
            [append.count for append in appends],
            [append.entries for append in appends],
        ],
    )
    statement.demand("blocks", len(appends))


def _announce(statement: _Statement, works: Sequence[Work]) -> None:
    lines = [line for work in works for line in work.feed]
    if not lines:
        return
    numbers = statement.numbers
    statement.step(
        "announced",
        f"SELECT * FROM unnest(${next(numbers)}::text[], ${next(numbers)}::text[]) WITH ORDINALITY AS u(name, key, at)",
        [[escaped(str(table)) for table, _ in lines], [key for _, key in lines]],
    )
    statement.lines = f"${next(numbers)}::bigint"
    statement.parameters.append(len(lines))


def _numbered(works: Sequence[Work], *, position: int, heads: dict[int, int]) -> list[Committed]:
    """What each work is told: its last position, and the number of its first audit entry."""
    at = position - sum(len(work.feed) for work in works)
    seqs = {
        log: end - sum(w.append.count for w in works if w.append and w.append.log == log) for log, end in heads.items()
    }
    done = []
    for work in works:
        at += len(work.feed)
        seq = -1
        if work.append is not None:
            seq = seqs[work.append.log]
            seqs[work.append.log] += work.append.count
        done.append(Committed(at if work.feed else 0, seq))
    return done
