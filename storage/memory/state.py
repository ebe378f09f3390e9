"""A whole store in memory: its shelves, its feed, and commits that check everything before they change anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from storage.bounds import check_commit, frame
from storage.codec import Codec, Row
from storage.errors import Conflict, OutOfBounds
from storage.memory.shelf import Shelf
from storage.news import News
from storage.port import AuditAppend, Change, Commit, Committed
from storage.records.audit import AuditBlockRecord
from storage.table import Key, Record


class State:
    """What the handles of one store share. No method suspends, so each is atomic on an event loop."""

    def __init__(self, kinds: Iterable[type[Record]]) -> None:
        self.shelves: dict[type[Record], Shelf] = {kind: Shelf(Codec(kind)) for kind in kinds}
        self.feed: deque[Change] = deque()
        self.position = 0
        self.news = News()
        self.loading: str | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything was ever announced, or is kept."""
        return self.position > 0 or any(shelf.rows for shelf in self.shelves.values())

    def begin_loading(self, source: str) -> None:
        """Forget what was loaded, and note what is to be loaded from."""
        self.shelves = {kind: Shelf(shelf.codec) for kind, shelf in self.shelves.items()}
        self.loading = source

    def finish_loading(self, position: int) -> None:
        """Be a store like any other, whose feed goes on behind the position."""
        self.position = position
        self.loading = None

    def commit(self, commit: Commit) -> Committed:
        """Apply all of it. Conflict, OutOfBounds: nothing was changed."""
        check_commit(commit)
        updates = commit.written[len(commit.inserts) :]
        puts = self._checked(commit.written)
        self._check_once(commit)
        for record in commit.inserts:
            self._expect(record, record.key, None)
        for record in updates:
            self._expect(record, record.key, record.rev - 1)
        for kind, key, rev in (*commit.deletes, *commit.expects):
            self._expect(kind, key, rev)
        for shelf, row in puts:
            shelf.put(row)
        for kind, key, _ in commit.deletes:
            self.shelves[kind].drop(key)
        seq = -1 if commit.audit is None else self._append(commit.audit)
        return Committed(self._announce(commit.announce), seq)

    def prune(self, kind: type[Record], column: str, micros: int, limit: int) -> int:
        """Delete at most `limit` records due before the instant; how many."""
        shelf = self.shelves[kind]
        doomed = [shelf.codec.key_of(row) for row, _ in zip(shelf.due(column, micros), range(limit), strict=False)]
        for key in doomed:
            shelf.drop(key)
        return len(doomed)

    def prune_feed(self, up_to: int) -> None:
        """Forget changes at or before the position."""
        while self.feed and self.feed[0].position <= up_to:
            self.feed.popleft()

    def _checked(self, records: Sequence[Record]) -> list[tuple[Shelf, Row]]:
        shelves = [self.shelves[type(record)] for record in records]
        return [
            (shelf, shelf.check(shelf.codec.to_row(record))) for shelf, record in zip(shelves, records, strict=True)
        ]

    def _check_once(self, commit: Commit) -> None:
        named = [(type(record), record.key) for record in commit.written]
        named += [(kind, key) for kind, key, _ in commit.deletes]
        if len(set(named)) != len(named):
            raise OutOfBounds("a commit names each record at most once; split it")

    def _expect(self, kind: Record | type[Record], key: Key, rev: int | None) -> None:
        if self.shelves[kind if isinstance(kind, type) else type(kind)].rev(key) != rev:
            reason = "a key exists already" if rev is None else "a record changed since it was read, or is gone"
            raise Conflict(f"table {kind.table.name!r}: {reason}; read again and retry")

    def _append(self, audit: AuditAppend) -> int:
        shelf = self.shelves[AuditBlockRecord]
        last: Any = next(iter(shelf.walk("key", prefix=(audit.log,), where={}, after=None, descending=True)), None)
        newest: AuditBlockRecord | None = None if last is None else shelf.codec.from_row(last)
        seq = 0 if newest is None else newest.seq + newest.count
        block = AuditBlockRecord(log=audit.log, seq=seq, count=len(audit.entries), entries=frame(audit.entries))
        shelf.put(shelf.codec.to_row(block))
        return seq

    def _announce(self, lines: Sequence[tuple[str, Key]]) -> int:
        for table, key in lines:
            self.position += 1
            self.feed.append(Change(self.position, table, tuple(key)))
        if not lines:
            return 0
        self.news.announce(self.position)
        return self.position
