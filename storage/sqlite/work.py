"""One commit call, turned into rows before it queues: what is wrong with it is its caller's alone.

Bounds are `storage.bounds`' business, conversion `storage.codec`'s, writing `writer`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from storage.bounds import check_commit, frame
from storage.codec import Codec, Row
from storage.errors import OutOfBounds
from storage.port import Commit
from storage.sqlite.statements import Statements
from storage.table import Key, Record

Catalog = Mapping[type[Record], Statements]
Rows = Mapping[Statements, Sequence[Row]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Append:
    """One audit block that still lacks its number."""

    log: int
    count: int
    entries: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A commit as rows. deletes: the key's cells and the revision. feed: table, and key as JSON. items: how many."""

    inserts: Rows
    updates: Rows
    deletes: Rows
    append: Append | None
    feed: Sequence[Row]
    items: int

    def touched(self) -> Iterator[tuple[Statements, set[Any]]]:
        """The keys that this work writes, per table, comparable with those of other works only."""
        for table, rows in chain(self.inserts.items(), self.updates.items()):
            yield table, table.codec.bare_keys(rows)
        for table, rows in self.deletes.items():
            one = len(table.codec.table.key) == 1
            yield table, {row[0] if one else row[:-1] for row in rows}


def prepare(commit: Commit, catalog: Catalog) -> Work:
    """The commit as rows.

    OutOfBounds: as `check_commit`, or a record is named twice. KeyError: a record type
    this storage does not keep. TypeError: a field holds another type than its hint says.
    """
    items = check_commit(commit)
    audit = commit.audit
    work = Work(
        inserts=_rows(commit.inserts, catalog),
        updates=_rows(commit.updates, catalog),
        deletes=_grouped((catalog[kind], (*key, rev)) for kind, key, rev in commit.deletes),
        append=audit and Append(log=audit.log, count=len(audit.entries), entries=frame(audit.entries)),
        feed=[(table, key_to_json(key)) for table, key in commit.announce],
        items=items,
    )
    _check_once(work)
    return work


def key_to_json(key: Key) -> str:
    """The key as the feed keeps it."""
    return msgspec.json.encode(key).decode()


def key_from_json(text: str) -> Key:
    """The key that `key_to_json` wrote. msgspec.MsgspecError: it did not."""
    return msgspec.json.decode(text, type=Key)


def _rows(records: Sequence[Record], catalog: Catalog) -> Rows:
    found: dict[type[Record], tuple[Callable[[Any], Row], list[Row]]] = {}
    for record in records:
        kind = type(record)
        entry = found.get(kind)
        if entry is None:
            codec: Codec[Any] = catalog[kind].codec
            entry = found[kind] = (codec.to_row, [])
        to_row, rows = entry
        rows.append(to_row(record))
    return {catalog[kind]: rows for kind, (_, rows) in found.items()}


def _check_once(work: Work) -> None:
    seen: dict[Statements, set[Any]] = {}
    for table, keys in work.touched():
        seen.setdefault(table, set()).update(keys)
    records = sum(len(rows) for part in (work.inserts, work.updates, work.deletes) for rows in part.values())
    if sum(map(len, seen.values())) != records:
        raise OutOfBounds("a commit names each record at most once; split it")


def _grouped(pairs: Iterable[tuple[Statements, Row]]) -> Rows:
    found: dict[Statements, list[Row]] = {}
    for table, row in pairs:
        found.setdefault(table, []).append(row)
    return found
