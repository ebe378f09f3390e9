"""The roll of replicas: each says that it lives, and finds out who does not.

A replica writes its row again with every beat. Whether another one lives is judged by its row alone: it stands still
over many beats of the observer's own, whatever any clock says, so an observer that was frozen or cut off judges nobody
by the time that it missed. What becomes of a dead one's sessions is `broker.housekeeping`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from broker.clock import Clock
from broker.errors import StartRefused
from broker.ids import random_id
from broker.replicas.skew import Skew
from storage.errors import Conflict, StorageError
from storage.port import Commit, Shared, Storage
from storage.records import ReplicaRecord

log = structlog.get_logger()

BEAT_S: Final = 1.0
"""How often a replica says that it lives."""
SILENT_BEATS: Final = 15
"""A row that stood still over so many beats is that of a dead replica: its work and its sessions are taken over."""
_BEAT_MAX_S: Final = 5.0
"""Longest wait of one beat for the database."""
WATCH_S: Final = 3.5
"""A row of this replica's name that has not moved for so long when it starts is that of an earlier life."""
_LOOK_S: Final = 0.25


class NameTaken(StartRefused):
    """Another process serves this database under the same server.instance; give each replica a name of its own."""

    code = "name_taken"


class DatabaseWentBack(StartRefused):
    """The database has lost commits that it had acknowledged; start this process again, so that it forgets them too."""

    code = "database_went_back"


@dataclass(slots=True)
class _Seen:
    """A row as it stands, and over how many beats it has."""

    rev: int
    beats: int


class Roll:
    """This replica's own row, and what it knows of the others. Made by `on_the_roll`.

    known: every row as it was last seen. skew: how its clock stands. lapses: how often it was found silent by others
    and came back.
    """

    def __init__(self, *, storage: Storage, clock: Clock, record: ReplicaRecord) -> None:
        self._storage = storage
        self._shared = storage if isinstance(storage, Shared) else None
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self.record = record
        self.skew = Skew(clock)
        self.lapses = 0
        self.known: tuple[ReplicaRecord, ...] = (record,)

    @property
    def alive(self) -> int:
        """How many replicas serve, this one among them."""
        return sum(row.ended_at is None for row in self.known)

    @property
    def shared(self) -> bool:
        """Whether other replicas may serve the same database."""
        return self._shared is not None

    async def run(self, *, position: Callable[[], int], lapsed: Callable[[], None]) -> None:
        """Beat until cancelled. Only for storage that is shared.

        position: up to where the feed is read. lapsed: others have closed this replica's sessions on record, so their
        connections must go. NameTaken: another process has this replica's name now, so this one must end.
        DatabaseWentBack: what is in memory was read from commits that are gone.
        """
        assert self._shared is not None, "nobody else can be there"
        well = True
        while True:
            await self._clock.sleep(BEAT_S)
            try:
                async with asyncio.timeout(_BEAT_MAX_S):
                    await self._beat(self._shared, position(), lapsed)
            except (StorageError, TimeoutError) as error:
                if well:
                    log.warning("beat_missed", error=str(error) or f"no answer within {_BEAT_MAX_S:g} s")
                well = False
            else:
                well = True

    async def _beat(self, shared: Shared, position: int, lapsed: Callable[[], None]) -> None:
        await self.measure(shared)
        try:
            await self._write(position=position)
        except Conflict:
            await self._again(position, lapsed)
        await self._observe()

    async def measure(self, shared: Shared) -> None:
        """Compare this replica's clock with the database's."""
        began = self._clock.monotonic()
        database = await shared.now()
        took_s = self._clock.monotonic() - began
        self.skew.measured(own=self._clock.now(), database=database, took_s=took_s)

    async def _write(self, **fields: object) -> None:
        record = msgspec.structs.replace(
            self.record, rev=self.record.rev + 1, seen_at=self._clock.now(), ended_at=None, **fields
        )
        await self._storage.commit(Commit(updates=[record]))
        self.record = record

    async def _again(self, position: int, lapsed: Callable[[], None]) -> None:
        """The row is not as it was left: a beat landed unconfirmed, others found this one silent, or it lost its name.

        From the moment at which the row is written again, nobody closes sessions of this replica; those that it has may
        have been closed on record already.
        """
        found = await self._storage.get(ReplicaRecord, self.record.key)
        if found is not None and found.life != self.record.life:
            raise _taken(self.record.instance)
        if found is not None and found.rev < self.record.rev:
            raise DatabaseWentBack(
                f"the database has lost what it had acknowledged to {self.record.instance!r}: a standby that was "
                "behind was promoted, or a backup was put in its place; start again, to serve what is there"
            )
        ended = found is None or found.ended_at is not None
        if found is None:
            # Revisions never repeat, or a process of this name that stood still might take this row for its own.
            record = msgspec.structs.replace(
                self.record, rev=self.record.rev + 1, seen_at=self._clock.now(), position=position
            )
            await self._storage.commit(Commit(inserts=[record]))
            self.record = record
        else:
            self.record = found
            await self._write(position=position)
        if ended:
            self.lapses += 1
            log.error("was_found_silent", beats=SILENT_BEATS, beat_s=BEAT_S)
            lapsed()

    async def _observe(self) -> None:
        """Look at the others; end the rows of those that stand still."""
        self.known = tuple(await replicas(self._storage))
        rows = {row.instance: row for row in self.known}
        for gone in self._seen.keys() - rows.keys():
            del self._seen[gone]
        for row in rows.values():
            seen = self._seen.get(row.instance)
            if seen is None or seen.rev != row.rev:
                self._seen[row.instance] = _Seen(rev=row.rev, beats=0)
                continue
            seen.beats += 1
            if seen.beats >= SILENT_BEATS and row.ended_at is None and row.instance != self.record.instance:
                await self._end(row)

    async def _end(self, row: ReplicaRecord) -> None:
        ended = msgspec.structs.replace(row, rev=row.rev + 1, ended_at=self._clock.now())
        # It has just come back, or another replica was quicker.
        with contextlib.suppress(Conflict):
            await self._storage.commit(Commit(updates=[ended]))
            log.error("replica_silent", instance=row.instance, seen_at=row.seen_at.isoformat())

    async def leave(self) -> None:
        """Say that this replica ends, so that nobody waits for it. What fails is found out by the others in time."""
        ended = msgspec.structs.replace(self.record, rev=self.record.rev + 1, ended_at=self._clock.now())
        with contextlib.suppress(StorageError):
            await self._storage.commit(Commit(updates=[ended]))


async def replicas(storage: Storage) -> list[ReplicaRecord]:
    """Every replica that lives, and the dead whose sessions are not closed yet; at most a page of 1000."""
    return (await storage.select(ReplicaRecord)).records


@asynccontextmanager
async def on_the_roll(storage: Storage, *, clock: Clock, instance: str, release: str) -> AsyncIterator[Roll]:
    """Enter this replica, and let the others know when it leaves.

    NameTaken: a living process has that name; found out by watching its row for up to `WATCH_S`, which a start after a
    crash therefore takes longer. StorageError: the database cannot serve.
    """
    before = await storage.get(ReplicaRecord, (instance,))
    if before is not None and before.ended_at is None and isinstance(storage, Shared):
        before = await _unmoved(storage, clock, before)
    now = clock.now()
    record = ReplicaRecord(
        rev=1 if before is None else before.rev + 1,
        instance=instance,
        life=random_id(),
        release=release,
        started_at=now,
        seen_at=now,
        position=await storage.position(),
    )
    try:
        await storage.commit(Commit(inserts=[record]) if before is None else Commit(updates=[record]))
    except Conflict:
        raise _taken(instance) from None
    roll = Roll(storage=storage, clock=clock, record=record)
    if isinstance(storage, Shared):
        await roll.measure(storage)
    try:
        yield roll
    finally:
        await roll.leave()


async def _unmoved(storage: Storage, clock: Clock, row: ReplicaRecord) -> ReplicaRecord | None:
    """The row, if it did not move while it was watched, or its replica left meanwhile."""
    until = clock.monotonic() + WATCH_S
    found: ReplicaRecord | None = row
    while found is not None and found.ended_at is None and clock.monotonic() < until:
        if found.rev != row.rev:
            raise _taken(row.instance)
        await clock.sleep(_LOOK_S)
        found = await storage.get(ReplicaRecord, row.key)
    return found


def _taken(instance: str) -> NameTaken:
    return NameTaken(
        f"another process serves this database as {instance!r}; give each replica a server.instance of its own"
    )
