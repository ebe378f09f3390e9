"""Everything that writes: runs in the writer's thread, on the one connection that may write.

Queueing calls into groups is `committer`'s business. A group is one transaction and so one trip to the disk. Its works
are first written together, rows of one table in one statement whichever call they came from. Only if that cannot be
(two calls touch one record, or one of them loses) is the group done again call by call, each in a savepoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from storage.codec import Codec, Row
from storage.errors import Conflict, OutOfBounds
from storage.port import Committed
from storage.records.audit import AuditBlockRecord
from storage.sqlite.failures import from_sqlite
from storage.sqlite.statements import Catalog, Statements, batches, flat
from storage.work import Append, Outcome, Work, changed, independent, merged

LOGS_REMEMBERED = 1024
"""Audit logs whose next number is kept in memory; beyond it they are looked up again."""

FEED_PRUNE_BATCH = 10_000
"""Feed lines deleted in one transaction, so that commits wait behind few milliseconds of pruning."""

_NEXT = "SELECT seq + count FROM audit_block WHERE log = ? ORDER BY seq DESC LIMIT 1"

_UNBINDABLE = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What Python's sqlite3 raises for a value that it cannot bind, apart from Python's own errors."""


class Writer:
    """The writing side of one database file. Every method blocks; all of them belong to one thread."""

    def __init__(self, *, connection: sqlite3.Connection, path: Path, catalog: Catalog) -> None:
        self._connection = connection
        self._path = path
        self._catalog = catalog
        self._blocks = catalog[AuditBlockRecord]
        # Next number per audit log. May be behind when another process appended: its block then has the very number
        # that this one would use, the insert fails, and the second attempt reads anew.
        self._next_seq: dict[int, int] = {}

    def commit_group(self, works: Sequence[Work]) -> list[Outcome]:
        """Make the works durable in one transaction, in order; one outcome each, Conflict or OutOfBounds for losers.

        StorageError: nothing of the group was written, or (the disk failed during COMMIT) it is unknown which; whole
        in any case.
        """
        with self._transaction():
            outcomes = self._together(works) if independent(works) else None
            return self._one_by_one(works) if outcomes is None else outcomes

    def prune(self, table: Statements, column: str, before: int, limit: int) -> int:
        """Delete at most `limit` rows due before the instant; how many."""
        with self._transaction():
            return self._connection.execute(table.prune(column), (before, limit)).rowcount

    def prune_feed(self, up_to: int) -> bool:
        """Delete some feed lines at or before the position, oldest first; whether there may be more."""
        with self._transaction():
            doomed = "SELECT position FROM feed WHERE position <= ? ORDER BY position LIMIT ?"
            sql = f"DELETE FROM feed WHERE position IN ({doomed})"  # noqa: S608 - constants only
            return self._connection.execute(sql, (up_to, FEED_PRUNE_BATCH)).rowcount == FEED_PRUNE_BATCH

    def touch(self) -> None:
        """Write one durable row, for a health check."""
        with self._transaction():
            self._connection.execute("UPDATE health SET checks = checks + 1")

    def _together(self, works: Sequence[Work]) -> list[Outcome] | None:
        """Write all as if they were one. None: that failed, nothing is written, an empty transaction is open."""
        try:
            return list(self._write(works))
        except (Conflict, OutOfBounds):
            self._next_seq.clear()
            self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            return None

    def _one_by_one(self, works: Sequence[Work]) -> list[Outcome]:
        self._next_seq.clear()
        outcomes: list[Outcome] = []
        for work in works:
            self._connection.execute("SAVEPOINT one")
            try:
                outcomes.extend(self._write((work,)))
            except (Conflict, OutOfBounds) as error:
                # The numbers given to a work that is undone must be given again, or the log would have a gap.
                self._next_seq.clear()
                self._connection.execute("ROLLBACK TO one")
                outcomes.append(error)
            self._connection.execute("RELEASE one")
        return outcomes

    def _write(self, works: Sequence[Work]) -> Sequence[Committed]:
        try:
            for codec, rows in merged(works, "expects").items():
                # Before anything is written: what one work relies on, no other of the group writes (`independent`).
                for row in dict.fromkeys(rows):
                    if self._connection.execute(self._catalog[codec.kind].expect, row).fetchone() is None:
                        raise Conflict(changed(codec))
            for codec, rows in merged(works, "inserts").items():
                self._insert(self._catalog[codec.kind], rows)
            for codec, rows in merged(works, "updates").items():
                self._update(codec, rows)
            for codec, rows in merged(works, "deletes").items():
                if self._connection.executemany(self._catalog[codec.kind].delete, rows).rowcount != len(rows):
                    raise Conflict(changed(codec))
            seqs = self._append([work.append for work in works])
            positions = self._announce([work.feed for work in works])
        except sqlite3.IntegrityError as error:
            raise from_sqlite(error, self._path) from None
        except (OverflowError, UnicodeEncodeError, *_UNBINDABLE) as error:
            # An integer over 64 bits, text with a lone surrogate, another type. The value is not repeated.
            raise OutOfBounds(f"a column cannot hold a value ({type(error).__name__})") from None
        return [Committed(position, seq) for position, seq in zip(positions, seqs, strict=True)]

    def _insert(self, table: Statements, rows: Sequence[Row]) -> None:
        """Insert; of rows whose last fields have their defaults, these cells are not bound."""
        defaults = table.codec.defaults
        every = len(table.codec.names)
        said = every - len(defaults)
        short = [row[:said] for row in rows if row[said:] == defaults]
        whole = [row for row in rows if row[said:] != defaults] if len(short) < len(rows) else []
        for cells, part in ((said, short), (every, whole)):
            for start, size in batches(len(part)):
                self._connection.execute(table.insert(size, cells), flat(part[start : start + size]))

    def _update(self, codec: Codec[Any], rows: Sequence[Row]) -> None:
        table = self._catalog[codec.kind]
        for start, size in batches(len(rows)):
            count = self._connection.execute(table.update(codec, size), flat(rows[start : start + size])).rowcount
            if count != size:
                raise Conflict(changed(codec))

    def _append(self, appends: Sequence[Append | None]) -> list[int]:
        """Insert the blocks, numbered in order; the first number of each, -1 where there was nothing to append."""
        seqs = [-1] * len(appends)
        rows = []
        for at, append in enumerate(appends):
            if append is not None:
                seqs[at] = self._take(append.log, append.count)
                rows.append(
                    self._blocks.codec.to_row(
                        AuditBlockRecord(log=append.log, seq=seqs[at], count=append.count, entries=append.entries)
                    )
                )
        for start, size in batches(len(rows)):
            sql = self._blocks.insert(size, len(self._blocks.codec.names))
            self._connection.execute(sql, flat(rows[start : start + size]))
        return seqs

    def _take(self, log: int, count: int) -> int:
        seq = self._next_seq.get(log)
        if seq is None:
            row = self._connection.execute(_NEXT, (log,)).fetchone()
            seq = 0 if row is None else int(row[0])
            if len(self._next_seq) >= LOGS_REMEMBERED:
                self._next_seq.clear()
        self._next_seq[log] = seq + count
        return seq

    def _announce(self, feeds: Sequence[Sequence[Row]]) -> list[int]:
        """Insert the feed lines in order; each work's last position, 0 where there was nothing to announce."""
        rows = [row for feed in feeds for row in feed]
        if not rows:
            return [0] * len(feeds)
        last = 0
        for start, size in batches(len(rows)):
            last = self._connection.execute(_announcement(size), flat(rows[start : start + size])).lastrowid or 0
        position = last - len(rows)
        positions = []
        for feed in feeds:
            position += len(feed)
            positions.append(position if feed else 0)
        return positions

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit at the end. Whatever goes wrong leaves no transaction open, and no number taken."""
        try:
            try:
                if self._connection.in_transaction:
                    # The rollback of an earlier failure failed too; the disk may be back by this time.
                    self._connection.execute("ROLLBACK")
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._next_seq.clear()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise from_sqlite(error, self._path) from None


@cache
def _announcement(lines: int) -> str:
    return 'INSERT INTO feed ("table", "key") VALUES ' + ",".join(["(?,?)"] * lines)  # noqa: S608 - constants only
