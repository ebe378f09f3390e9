"""The service around the rows that decide who gets what: load them verified, change them, follow other replicas.

Only here are authority rows written after `init`. What they mean (policy, sessions, keys) does not live here, nor does
the audit journal through which every change goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from broker.audit.entries import Entry
from broker.authority.book import Book, R_co
from broker.authority.check import Checker, Problem
from broker.authority.follow import Follower
from broker.authority.ledger import Ledger
from broker.authority.manifest import SetDigest
from broker.authority.reader import Reader
from broker.authority.request import Request, Writer, signed
from broker.authority.rowmac import MACED, RowMac
from broker.authority.untold import Untold
from broker.clock import Clock
from broker.errors import Conflict, Tampered, Unavailable
from storage.port import Change, Committed, Delete, Expect, Storage
from storage.records import (
    AUTHORITY,
    AdminRecord,
    DataKeyRecord,
    EnrolmentRecord,
    GrantRecord,
    IssuerRecord,
    KeyringRecord,
    ManifestRecord,
    PoolRecord,
    RotationPolicyRecord,
    WorkerRecord,
)
from storage.table import Key, R, Record

LOCK_WAIT_S: Final = 5.0
"""Longest wait for the commits and refreshes that are ahead in this process."""
COMMIT_TRIES: Final = 64
"""Most attempts at one commit while other replicas change the same tables; a lost one costs a few reads."""


class Authority:
    """The authority tables of one cluster, as this replica knows them. Made by `load_authority`."""

    def __init__(
        self,
        *,
        writer: Writer,
        mac: RowMac,
        ledgers: Mapping[type[Record], Ledger],
        reader: Reader,
        follower: Follower,
        position: int,
    ) -> None:
        self._writer = writer
        self._mac = mac
        self._ledgers = ledgers
        self._by_table = {kind.table.name: ledger for kind, ledger in ledgers.items()}
        self._reader = reader
        self._follower = follower
        self._checker = Checker(reader=reader, follower=follower)
        self._position = position
        self._lock = asyncio.Lock()
        self._untold = Untold()
        self._pending: list[Change] = []
        self.admins = self._book(AdminRecord)
        self.data_keys = self._book(DataKeyRecord)
        self.enrolments = self._book(EnrolmentRecord)
        self.grants = self._book(GrantRecord)
        self.issuers = self._book(IssuerRecord)
        self.keyrings = self._book(KeyringRecord)
        self.pools = self._book(PoolRecord)
        self.rotation_policies = self._book(RotationPolicyRecord)
        self.workers = self._book(WorkerRecord)

    @property
    def position(self) -> int:
        """The feed position up to which the books are complete; whoever pumps the feed starts behind it."""
        return self._position

    @property
    def manifests(self) -> tuple[ManifestRecord, ...]:
        """The manifest of each table that this replica stands on: what an audit entry or an operator may note down."""
        return tuple(ledger.manifest for ledger in self._ledgers.values())

    def verify(self, record: Record) -> None:
        """Return only if the MAC of this row (a token's or version's, say) is right. RowForged: it is not.

        An earlier row of the same key passes: see docs/spec/authority.md, "What remains".
        """
        self._mac.verify(record)

    def sign(self, record: R) -> R:
        """The row with its MAC, for a commit that does not come here. Of authority tables none does.

        ValueError: as `RowMac.sign`.
        """
        assert type(record) not in self._ledgers, "its manifest would not follow"
        return self._mac.sign(record)

    async def commit(
        self,
        entries: Sequence[Entry],
        *,
        inserts: Sequence[Record] = (),
        updates: Sequence[Record] = (),
        deletes: Sequence[Delete] = (),
        expects: Sequence[Expect] = (),
        announce: Sequence[tuple[str, Key]] = (),
    ) -> Committed:
        """Make rows and entries durable in one commit, with MACs and manifests; then show them in the books.

        Rows of any kind may be mixed. Changed authority and token rows are announced in the feed, besides `announce`.
        Commits that touch authority tables wait for each other, at most `LOCK_WAIT_S`; others do not wait.
        Conflict: a key exists, or a row is at another revision than the change assumes or relies on (`expects`);
        nothing was changed, and the books know what was relied on as it is now.
        Unavailable: the wait was too long, other replicas were faster `COMMIT_TRIES` times (nothing was changed), or
        the journal could not make it durable in time (it may still become so). Tampered: what storage holds was not
        written by this cluster. ValueError: see `request.signed`. If it is cancelled, or Unavailable, while the journal
        writes, the change is whole or absent, and the books learn of it from the feed.
        """
        request = signed(
            mac=self._mac,
            entries=entries,
            inserts=inserts,
            updates=updates,
            deletes=deletes,
            expects=expects,
            announce=announce,
        )
        if not request.kinds:
            try:
                committed = await request.write(self._writer, {})
            except Conflict:
                await self._catch_up(request)
                raise
            self._untold.add(request.announce)
            return committed
        ledgers = [self._ledgers[kind] for kind in request.kinds]
        async with self._turn():
            for _ in range(COMMIT_TRIES):
                try:
                    steps = {ledger.kind: request.step(ledger) for ledger in ledgers}
                    committed = await request.write(self._writer, steps)
                except Conflict:
                    # Only a manifest that moved says that this was a race for the table and not for the row itself.
                    if not await self._moved(request, ledgers):
                        raise
                    continue
                for ledger in ledgers:
                    ledger.take(steps[ledger.kind])
                self._untold.add(request.announce)
                return committed
        raise Unavailable(f"other replicas were faster {COMMIT_TRIES} times; nothing was changed, retry")

    async def refresh(self, changes: Sequence[Change]) -> list[Change]:
        """Take over what the feed announced: read those rows again, verify them, and the whole set by its manifest.

        Call it at least every second, with or without changes: it also looks whether a manifest moved that the feed
        said nothing about, so hiding lines of the feed hides nothing.
        changes: what follows in the feed on the changes of the call before; if it raised, the same ones again.
        Returns those of them that name authority rows, one more for each other row that this call altered, and one for
        each row changed by this process that the feed has not named by the second call: what listeners should look at.
        A change shown already (this replica's own commit) is returned all the same.
        Tampered: storage holds what this cluster did not write; the books of that table keep their last verified rows,
        those of the others are up to date (`pending` says what changed), and no grant may be given until an operator
        has mended it. Unavailable: storage did not answer, or a table never stood still; call again.
        """
        named = {(change.table, change.key) for change in changes}
        position = max([self._position, *(change.position for change in changes[-1:])])
        refused: Tampered | None = None
        async with self._turn():
            manifests = await self._manifests()
            for table, ledger in self._by_table.items():
                keys = {key for name, key in named if name == table}
                if not keys and manifests.get(table) == ledger.manifest:
                    continue
                try:
                    altered = await self._follower.follow(ledger, keys, self._position)
                except Tampered as error:
                    refused = refused or error
                else:
                    self._pending += [Change(position, table, key) for key in altered if (table, key) not in named]
            self._pending += [Change(position, *name) for name in self._untold.look(named)]
            self._pending += [change for change in changes if change.table in self._by_table]
            if refused is not None:
                raise refused
            self._position = position
        return self.pending()

    async def reload(self) -> list[Change]:
        """Read every table again, as at start: for when changes were forgotten that the feed would have named.

        Returns one change for each row that this altered, and what earlier calls of `refresh` still owe. Errors as
        there; call again.
        """
        async with self._turn():
            position = await self._reader.position()
            for table, ledger in self._by_table.items():
                altered = ledger.adopt(await self._follower.load(ledger.blank()))
                self._pending += [Change(position, table, key) for key in altered]
            self._position = position
        return self.pending()

    def pending(self) -> list[Change]:
        """What the last `refresh` would have returned if it had not raised Tampered; empty when asked again."""
        pending, self._pending = self._pending, []
        return pending

    async def _manifests(self) -> dict[str, ManifestRecord]:
        """The manifests, in one reading; none where one of them cannot be believed, so that each is read by itself."""
        try:
            return await self._reader.manifests(list(self._by_table))
        except Tampered:
            return {}

    async def check(self) -> list[Problem]:
        """Read every authority, token and version row again and say all that is wrong; empty: nothing is.

        Reads in pages beside running commits; costs about a second for 100 000 rows. Where it finds rightful changes of
        other replicas it takes them over. Unavailable: storage did not answer.
        """
        problems: list[Problem] = []
        for ledger in self._ledgers.values():
            suspects = await self._checker.suspects(ledger)
            async with self._turn():
                found, altered = await self._checker.judge(ledger, suspects, self._position)
                self._untold.add((ledger.kind.table.name, key) for key in altered)
                problems += found
        return problems + await self._checker.forged()

    async def _catch_up(self, request: Request) -> None:
        """Learn how the authority rows stand that a lost commit relied on, so that it is not lost again."""
        if ledgers := [self._ledgers[kind] for kind in request.relied_on]:
            async with self._turn():
                await self._moved(request, ledgers)

    async def _moved(self, request: Request, ledgers: Collection[Ledger]) -> bool:
        """Catch up with these tables; whether any other replica had changed one.

        The request's own rows are read too: if one conflicts under an unmoved manifest, it was tampered with.
        """
        before = [ledger.manifest for ledger in ledgers]
        for ledger in ledgers:
            altered = await self._follower.follow(ledger, request.keys(ledger.kind), self._position)
            self._untold.add((ledger.kind.table.name, key) for key in altered)
        return before != [ledger.manifest for ledger in ledgers]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(LOCK_WAIT_S):
                await self._lock.acquire()
        except TimeoutError as error:
            raise Unavailable(f"changes of authority rows queued for more than {LOCK_WAIT_S:g} s; retry") from error
        try:
            yield
        finally:
            self._lock.release()

    def _book(self, kind: type[R_co]) -> Book[R_co]:
        return Book(kind, self._ledgers[kind])


async def load_authority(
    *, storage: Storage, writer: Writer, derive: Callable[[str], bytes], cluster_id: str, clock: Clock
) -> Authority:
    """Read and verify every authority table: each row's MAC, and each whole table by its manifest.

    derive: 32 bytes for each label, out of the cluster's root key. Holds nothing that needs closing.
    RowForged, TableAltered: storage holds what this cluster did not write; the message says where. Unavailable: storage
    did not answer, or a table changed faster than it could be read.
    """
    mac = RowMac(derive, cluster_id)
    reader = Reader(storage=storage, mac=mac)
    follower = Follower(reader=reader, clock=clock)
    position = await reader.position()
    ledgers: dict[type[Record], Ledger] = {}
    for kind in AUTHORITY:
        digest = SetDigest(derive, cluster_id, kind.table.name)
        ledgers[kind] = await follower.load(Ledger(kind=kind, mac=mac, digest=digest))
    return Authority(writer=writer, mac=mac, ledgers=ledgers, reader=reader, follower=follower, position=position)


async def find_forged(
    *, storage: Storage, derive: Callable[[str], bytes], cluster_id: str, clock: Clock
) -> list[Problem]:
    """Every row of the database without a valid MAC: for the operator of a database that `load_authority` refuses.

    Says nothing about sets of rows (missing, put back, rolled back). Unavailable: storage did not answer.
    """
    reader = Reader(storage=storage, mac=RowMac(derive, cluster_id))
    checker = Checker(reader=reader, follower=Follower(reader=reader, clock=clock))
    return await checker.forged(MACED)
