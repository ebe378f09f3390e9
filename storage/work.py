"""One commit call, turned into rows before it queues: what is wrong with it is its caller's alone.

Bounds are `storage.bounds`' business, conversion `storage.codec`'s, writing the adapters'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec

from storage.bounds import check_commit, frame
from storage.codec import Codec, Row
from storage.errors import OutOfBounds, StorageError
from storage.port import Amended, Commit, Committed, Delete, Expect
from storage.table import Key, Record

Codecs = Mapping[type[Record], Codec[Any]]
Rows = Mapping[Codec[Any], Sequence[Row]]
Outcome = Committed | StorageError
"""What became of one call; a refusal is a value here, so that it can be handed to the one whose it is."""

ALIKE_FROM = 8
"""So many amended records are looked at together first; of fewer, looking at each is as cheap."""


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """One audit block that still lacks its number."""

    log: int
    count: int
    entries: bytes


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A commit as rows. updates: of whole records, or of what is amended of them, each under its own codec.

    deletes, expects: key and revision. feed: table, and key as JSON. items: how many.
    """

    inserts: Rows
    updates: Rows
    deletes: Rows
    expects: Rows
    append: Append | None
    feed: Sequence[Row]
    items: int

    def touched(self) -> Iterator[tuple[type[Record], set[Any]]]:
        """The keys that this work writes, per table, comparable with those of other works only."""
        for codec, rows in chain(self.inserts.items(), self.updates.items()):
            yield codec.kind, codec.bare_keys(rows)
        yield from _keys(self.deletes)

    def relied_on(self) -> Iterator[tuple[type[Record], set[Any]]]:
        """The keys that this work reads and does not write, likewise."""
        yield from _keys(self.expects)


def prepare(commit: Commit, codecs: Codecs) -> Work:
    """The commit as rows.

    OutOfBounds: as `check_commit`, or a record is named twice. KeyError: a record type
    this storage does not keep. TypeError: a field holds another type than its hint says.
    """
    items = check_commit(commit)
    audit = commit.audit
    work = Work(
        inserts=_rows(commit.inserts, codecs),
        updates=_rows(commit.updates, codecs),
        deletes=_stored_rows(commit.deletes, codecs),
        expects=_stored_rows(commit.expects, codecs),
        append=audit and Append(log=audit.log, count=len(audit.entries), entries=frame(audit.entries)),
        feed=[(table, key_to_json(key)) for table, key in commit.announce],
        items=items,
    )
    records = len(commit.inserts) + len(commit.updates) + len(commit.deletes)
    if records > 1:
        _check_once(work, records)
    return work


def key_to_json(key: Key) -> str:
    """The key as the feed keeps it."""
    return msgspec.json.encode(key).decode()


def key_from_json(text: str) -> Key:
    """The key that `key_to_json` wrote. msgspec.MsgspecError: it did not."""
    return msgspec.json.decode(text, type=Key)


def merged(works: Sequence[Work], part: Literal["inserts", "updates", "deletes", "expects"]) -> Rows:
    """One part of several works, as if they were one."""
    if len(works) == 1:
        rows: Rows = getattr(works[0], part)
        return rows
    found: dict[Codec[Any], list[Any]] = {}
    for work in works:
        for codec, rows_of_one in getattr(work, part).items():
            found.setdefault(codec, []).extend(rows_of_one)
    return found


def independent(works: Sequence[Work]) -> bool:
    """Whether writing kind by kind equals writing call by call: no call touches what another touches or relies on."""
    if len(works) == 1 or not any(work.updates or work.deletes for work in works):
        return True  # inserts alone: a key that occurs twice fails by itself
    seen: dict[type[Record], set[Any]] = {}
    for work in works:
        # A work names a record once (`prepare` saw to it), so whatever was seen already is another work's.
        for kind, keys in work.touched():
            known = seen.setdefault(kind, set())
            if not known.isdisjoint(keys):
                return False
            known |= keys
    return all(seen.get(kind, _NONE).isdisjoint(keys) for work in works for kind, keys in work.relied_on())


_NONE: frozenset[Any] = frozenset()


def _keys(rows: Rows) -> Iterator[tuple[type[Record], set[Any]]]:
    """The keys of rows that are a key and a revision."""
    for codec, rows_of_one in rows.items():
        one = len(codec.table.key) == 1
        yield codec.kind, {row[0] if one else row[:-1] for row in rows_of_one}


def changed(codec: Codec[Any]) -> str:
    """What a lost compare-and-set is told."""
    return f"table {codec.table.name!r}: a record changed since it was read, or is gone; read again and retry"


def _rows(records: Sequence[Record | Amended], codecs: Codecs) -> Rows:
    kinds = set(map(type, records))
    if len(kinds) == 1 and Amended not in kinds:  # by far the most: the new leases of a batch
        codec = codecs[kinds.pop()]
        return {codec: codec.to_rows(records)}
    if kinds == {Amended} and len(records) >= ALIKE_FROM:
        befores, afters = zip(*records, strict=True)
        if len(set(map(type, afters))) == 1:
            part = codecs[type(afters[0])].amending_all(befores, afters)
            if part is not None:
                return {part: part.to_rows(afters)}
    found: dict[Codec[Any], list[Record]] = {}
    for record in records:
        if isinstance(record, Amended):
            after: Record = record.after
            codec = codecs[type(after)].amending(record.before, after)
        else:
            after, codec = record, codecs[type(record)]
        alike = found.get(codec)
        if alike is None:
            found[codec] = [after]
        else:
            alike.append(after)
    return {codec: codec.to_rows(alike) for codec, alike in found.items()}


def _check_once(work: Work, records: int) -> None:
    seen: dict[type[Record], set[Any]] = {}
    for kind, keys in work.touched():
        seen.setdefault(kind, set()).update(keys)
    if sum(map(len, seen.values())) != records:
        raise OutOfBounds("a commit names each record at most once; split it")


def _stored_rows(stored: Sequence[Delete] | Sequence[Expect], codecs: Codecs) -> Rows:
    """What is expected to be stored, as a key and a revision."""
    found: dict[Codec[Any], list[Row]] = {}
    for kind, key, rev in stored:
        found.setdefault(codecs[kind], []).append((*key, rev))
    return found
