"""The storage port: what the broker may ask of a database, and the laws every adapter keeps.

The laws are executable in `storage.conformance`. Adapters are named only in `storage.catalog`. No method reads a
clock: instants come in as arguments. Every method may raise `storage.errors.Unavailable`; no method holds on to a
caller's records after it returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, runtime_checkable

import msgspec

from storage.table import Key, R, Record

PAGE_MAX = 1000
"""Most records in one answer of `select`, `due`, `feed`, and most keys in one `get_many`."""
COUNT_MAX = 100_000
"""Most records that one `count` counts."""
COMMIT_MAX = 20_000
"""Most inserts, updates, deletes, expectations, changes and audit entries together in one `commit`."""
AUDIT_ENTRY_MAX = 65_535
"""Most bytes in one audit entry: its length is framed in two bytes."""
AUDIT_BYTES_MAX = 16 * 2**20
"""Most bytes of audit entries together in one `commit`."""


class Delete(NamedTuple):
    """Remove the record of this kind and key, if its stored revision is still `rev`."""

    kind: type[Record]
    key: Key
    rev: int


class Expect(NamedTuple):
    """Commit only if the record of this kind and key is stored at revision `rev`. It is not changed."""

    kind: type[Record]
    key: Key
    rev: int


class Amended(NamedTuple):
    """A record as it is stored and as it is to be, a revision later: what is the same in both need not be written.

    `before` is what its revision says, whole: as it was read, or written last. `after` is the revision behind it. Rows
    that change seldom all over are written at half the cost this way.
    """

    before: Record
    after: Record


class AuditAppend(NamedTuple):
    """Append entries (each 1 to 65 535 bytes, already encoded) to the log numbered `log`, as one block."""

    log: int
    entries: tuple[bytes, ...]


class Change(NamedTuple):
    """One line of the feed: the record of table `table` with key `key` was inserted, updated or deleted."""

    position: int
    table: str
    key: Key


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """All of it or nothing. One commit names each record at most once.

    inserts: records with rev 1 whose keys must not exist.
    updates: whole records, or amended ones; the stored revision must be one less than that of the record (`after`).
    expects: what the commit relies on and does not write; it must still be so at the moment at which this is written.
    audit: at most one append; its sequence numbers are assigned in commit order, without gaps.
    announce: records (of any kind) whose change the feed shall carry, as (table name, key).
    """

    inserts: Sequence[Record] = ()
    updates: Sequence[Record | Amended] = ()
    deletes: Sequence[Delete] = ()
    expects: Sequence[Expect] = ()
    audit: AuditAppend | None = None
    announce: Sequence[tuple[str, Key]] = ()

    @property
    def written(self) -> list[Record]:
        """Every record that is inserted, updated or amended, as it is to be."""
        return [*self.inserts, *(each.after if isinstance(each, Amended) else each for each in self.updates)]


class Committed(NamedTuple):
    """What was made durable.

    position: of this commit's last announced change, else 0. first_seq: of its first audit entry (from 0), else -1.
    """

    position: int
    first_seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[R]):
    """Records in index order. `next` goes into the following `select` as `after`; None: that was the last page."""

    records: list[R]
    next: Key | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What `check` found: schema version, and free-form facts for people (sizes, journal mode, server version)."""

    schema: int
    facts: Mapping[str, str | int]


class Storage(Protocol):
    """A database that remembers records. Adapters are opened by their class's `open(url)` context manager."""

    async def get(self, kind: type[R], key: Key) -> R | None:
        """The committed record, or None."""
        ...

    async def get_many(self, kind: type[R], keys: Sequence[Key]) -> dict[Key, R]:
        """The committed records among at most `PAGE_MAX` keys, seen at one moment; absent keys are left out."""
        ...

    async def select(
        self,
        kind: type[R],
        *,
        index: str = "key",
        prefix: Key = (),
        where: Mapping[str, str | int | None] | None = None,
        after: Key | None = None,
        descending: bool = False,
        limit: int = PAGE_MAX,
    ) -> Page[R]:
        """One page in the order of a declared index, seen at one moment.

        prefix: equality on the first columns of that order. where: equality on further columns (None: is null),
        applied to what the index yields. after: begin behind this tuple of the order's columns (a `Page.next`, or
        made by hand). A record that exists throughout a paged walk is seen exactly once, whatever is written meanwhile.
        """
        ...

    async def count(self, kind: type[Record], *, index: str = "key", prefix: Key = (), limit: int) -> int:
        """How many records equal `prefix` on the first columns of a declared index; `limit` if there are more.

        Costs what the index costs to walk, not what the records weigh. limit: 1 to `COUNT_MAX`, else OutOfBounds.
        """
        ...

    async def due(self, kind: type[R], column: str, before: datetime, limit: int = PAGE_MAX) -> list[R]:
        """Records whose declared due column is at or before `before`, earliest first, ties by key."""
        ...

    async def commit(self, commit: Commit) -> Committed:
        """Make the whole commit durable, or change nothing.

        Returns only after it would survive power loss. Concurrent commits may share one trip to the disk; callers
        never see that. Commits of one caller that were issued in order are applied in order. Cancelling the caller
        leaves the commit either whole or absent, and never harms another caller's.
        Conflict: a key existed, or a revision was another, an expected one too; nothing was changed.
        Unavailable: nothing was changed, or, where the message says so, it is unknown; whole in any case.
        OutOfBounds: over `COMMIT_MAX`, an audit entry of a wrong size, a record named twice, an amendment of another
        record or over several revisions, or a value that a column cannot hold (an integer over 64 bits, text with a
        lone surrogate); nothing was changed.
        """
        ...

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        """Announced changes behind position `after`, in commit order.

        Gap-free: nothing ever appears before what was read.
        """
        ...

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return soon after the feed has something behind `after`, or when the time is over.

        A hint, never a promise.
        """
        ...

    async def position(self) -> int:
        """The feed's newest position (0: nothing yet). What is read after this call is at least that new."""
        ...

    async def prune(self, kind: type[Record], column: str, before: datetime, limit: int = PAGE_MAX) -> int:
        """Delete at most `limit` records whose declared due column is before `before`; how many were deleted."""
        ...

    async def prune_feed(self, up_to: int) -> None:
        """Forget changes at or before position `up_to`."""
        ...

    async def check(self) -> Health:
        """Read and write once. Raises what a commit would raise."""
        ...


class Backup(Protocol):
    """An optional power: copy the whole database while it is in use."""

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to `path` (mode 0600), which must not exist. Cut short, it leaves all or nothing."""
        ...


@runtime_checkable
class Shared(Protocol):
    """An optional power: several processes may serve one database at the same time, on machines of their own.

    An adapter without it is used by one process, on the machine whose clock that process reads.
    """

    async def now(self) -> datetime:
        """The database's instant while this call lasts: the clock that all who share it can compare theirs with."""
        ...


class Moment(Protocol):
    """What a copy reads: a database that nobody writes to, or one moment of a database in use."""

    async def select(self, kind: type[R], *, after: Key | None = None, limit: int = PAGE_MAX) -> Page[R]:
        """One page in the order of the key, as `Storage.select`."""
        ...

    async def position(self) -> int:
        """The feed's newest position at that moment."""
        ...


class Loading(Storage, Protocol):
    """An optional power: a database while it is filled with the records of another one, exactly as they are there.

    An adapter announces a function `(url: str, source: str) -> AbstractAsyncContextManager[Loading]` in the group
    `tokenbroker.storage.loading`. It begins to fill an empty database; from then until `finish` has returned, whatever
    happens, opening that database in any other way is `storage.errors.Unfinished`. If a fill was cut short, it goes on
    with what was loaded where `source` is the text that it was begun with, and starts from nothing where it is not.
    Refused: the database is not empty, and what it holds was not loaded.
    """

    async def load(self, records: Sequence[Record]) -> None:
        """Insert records of one type as they are, at any revision, audit blocks with their numbers too; durable.

        All of them or none. Conflict: a key exists. OutOfBounds: over `PAGE_MAX`, or as `commit` says.
        """
        ...

    async def finish(self, position: int) -> None:
        """Make it a database like any other, durable on return: open it anew to use it.

        Its feed is empty and goes on behind `position`; each audit log goes on behind its last block.
        """
        ...
