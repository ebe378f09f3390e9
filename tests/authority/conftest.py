"""A cluster on a SQLite file, replicas of it, and an attacker who edits the file with plain SQL."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.app import Broker, open_broker
from broker.audit.encoding import decode
from broker.audit.entries import AuthorityPinned, BackupTaken, Entry
from broker.audit.source import StorageSource
from broker.authority.authority import Authority, load_authority
from broker.authority.manifest import initial_manifests
from broker.clock import FakeClock
from broker.errors import Conflict, Unavailable
from broker.settings import Settings
from broker.vault.root import create_root
from kms.catalog import open_kms
from kms.local import create_key_file
from storage import errors as storage_errors
from storage.port import Change, Commit, Committed, Storage
from storage.records import GrantRecord, WorkerKey, WorkerRecord
from storage.sqlite import open_sqlite, restore_sqlite

AT = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class EagerClock(FakeClock):
    """Pauses end at once, so that a reader's patience costs a test nothing."""

    async def sleep(self, seconds: float) -> None:
        await self.advance(seconds)


class PlainWriter:
    """Writes straight to storage, without an audit log."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def commit(self, entries: Sequence[object], **parts: Any) -> Committed:
        assert not entries
        try:
            return await self._storage.commit(Commit(**parts))
        except storage_errors.Conflict as error:
            raise Conflict(str(error)) from error
        except storage_errors.Unavailable as error:
            raise Unavailable(str(error)) from error


class Interposed:
    """A storage where something happens after each answer of the methods named: `action(*arguments)`, awaited."""

    def __init__(self, storage: Storage, **after: Callable[..., Any]) -> None:
        self._storage = storage
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method, action = getattr(self._storage, name), self._after.get(name)
        if action is None:
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = await method(*args, **kwargs)
            await action(*args)
            return answer

        return call


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One database, its root key, and the hands of the attacker."""

    path: Path
    root: bytes
    cluster_id: str

    def derive(self, label: str) -> bytes:
        return hmac.digest(self.root, label.encode(), "sha256")

    def open(self) -> AbstractAsyncContextManager[Storage]:
        return open_sqlite(f"sqlite:///{self.path}")

    async def init(self) -> None:
        async with self.open() as storage:
            await storage.commit(Commit(inserts=initial_manifests(self.derive, self.cluster_id)))

    async def load(self, storage: Storage, writer: Any = None) -> Authority:
        return await load_authority(
            storage=storage,
            writer=writer or PlainWriter(storage),
            derive=self.derive,
            cluster_id=self.cluster_id,
            clock=EagerClock(),
        )

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[tuple[Authority, Storage]]:
        async with self.open() as storage:
            yield await self.load(storage), storage

    def sql(self, *statements: str | tuple[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
        """What an attacker with write access does: any SQL, committed. The last statement's rows."""
        rows: list[tuple[Any, ...]] = []
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for statement in statements:
                text, values = (statement, ()) if isinstance(statement, str) else statement
                rows = connection.execute(text, values).fetchall()
        return rows

    def rows(self, table: str, where: str) -> list[tuple[Any, ...]]:
        """Whole rows, copied for later use."""
        return self.sql(f'SELECT * FROM "{table}" WHERE {where}')

    def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Whole rows, put (back) in place of what is there."""
        for row in rows:
            self.sql((f'INSERT OR REPLACE INTO "{table}" VALUES ({",".join("?" * len(row))})', row))

    def announce(self, table: str, *keys: str) -> None:
        """Lines of the feed, so that running replicas look."""
        for key in keys:
            self.sql(('INSERT INTO feed ("table", "key") VALUES (?, ?)', (table, f'["{key}"]')))


@dataclass(frozen=True, kw_only=True)
class Installation(Cluster):
    """A cluster that whole brokers serve, one life after the other, over a clock that the test moves."""

    clock: FakeClock

    @asynccontextmanager
    async def life(self, instance: str = "one", **options: Any) -> AsyncIterator[Broker]:
        """A broker from its start to its orderly stop, with the duty of pinning at work."""
        settings = Settings.model_validate(
            {
                "cluster": {"id": self.cluster_id},
                "server": {"instance": instance},
                "storage": {"url": f"sqlite:///{self.path}"},
                "kms": {"keys": [f"local:{self.path.with_name('kms.key')}"]},
            }
        )
        async with open_broker(settings, clock=self.clock, **options) as broker, asyncio.TaskGroup() as tasks:
            duty = tasks.create_task(broker.pins.run())
            await asyncio.sleep(0)  # the duty waits for its first second from here on
            yield broker
            duty.cancel()

    async def second(self, broker: Broker) -> None:
        """Let one second pass, and what is due in it reach the disk."""
        await self.clock.advance(1.0)
        async with asyncio.timeout(5):
            while broker.journal._in_flight:  # noqa: ASYNC110 - it empties by storage's threads, which know no Event
                await asyncio.sleep(0.002)

    async def signed(self, broker: Broker) -> None:
        """Let seconds pass until what was changed is pinned, and the pin is under a checkpoint."""
        async with asyncio.timeout(5):
            while broker.journal.unsigned or broker.pins._due():
                await self.second(broker)
                await asyncio.sleep(0.002)

    async def pins(self, log: int) -> list[tuple[int, AuthorityPinned]]:
        """The pins of one log, each with its number."""
        found = []
        async with self.open() as storage:
            async for batch in StorageSource(storage=storage).batches(log):
                for seq, raw in enumerate(batch.entries, batch.first_seq):
                    if b"authority.pinned" in raw and isinstance(entry := decode(raw), AuthorityPinned):
                        found.append((seq, entry))
        return found

    def keep(self, table: str) -> dict[str, list[tuple[Any, ...]]]:
        """A table and its manifest as they are, copied for later use."""
        return {table: self.rows(table, "true"), "manifest": self.rows("manifest", f"kind = '{table}'")}

    def put_back(self, table: str, kept: dict[str, list[tuple[Any, ...]]]) -> None:
        """The table and its manifest as they were."""
        self.sql(f'DELETE FROM "{table}"')
        for name, rows in kept.items():
            self.put(name, rows)

    async def copy(self, broker: Broker, name: str) -> Path:
        """A copy of the database at this moment: a backup, or what a crash leaves."""
        path = self.path.with_name(name)
        await broker.storage.backup(path)  # type: ignore[attr-defined]  # the optional power, which SQLite has
        return path

    def become(self, copy: Path) -> None:
        """Put a copy in the place of the database, while nobody runs."""
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        restore_sqlite(copy, self.path)


async def news(authority: Authority, storage: Storage) -> list[Change]:
    """One turn of the pump: everything in the feed behind the authority's position."""
    return await authority.refresh(await storage.feed(authority.position))


def worker(name: str, **changes: Any) -> WorkerRecord:
    fields: dict[str, Any] = {
        "name": name,
        "groups": ("ci",),
        "auth": "ed25519",
        "keys": (WorkerKey(public_key=hashlib.sha256(name.encode()).digest(), added_at=AT),),
        "labels": {"team": "core", "büro": "1"},
        "single_session": False,
        "disabled": False,
        "created_at": AT,
        "expires_at": None,
    }
    return WorkerRecord(**fields | changes)


def grant(grant_id: str, **changes: Any) -> GrantRecord:
    fields: dict[str, Any] = {
        "id": grant_id,
        "subject": "group:ci",
        "pattern": "github/*",
        "ttl_s": 300,
        "max_ttl_s": 3600,
        "source_cidrs": (),
        "windows": (),
        "created_by": "root",
        "created_at": AT,
        "expires_at": None,
    }
    return GrantRecord(**fields | changes)


@pytest.fixture
async def cluster(tmp_path: Path) -> Cluster:
    """A cluster after `init`: manifests of empty tables."""
    made = Cluster(path=tmp_path / "broker.db", root=b"r" * 32, cluster_id="cluster-one")
    await made.init()
    return made


@pytest.fixture
async def other_cluster(tmp_path: Path) -> Cluster:
    """A second cluster with a root key of its own."""
    made = Cluster(path=tmp_path / "other.db", root=b"o" * 32, cluster_id="cluster-two")
    await made.init()
    return made


@pytest.fixture(name="worker")
def worker_fixture() -> Callable[..., WorkerRecord]:
    """Make a worker record by name, with changes."""
    return worker


@pytest.fixture(name="grant")
def grant_fixture() -> Callable[..., GrantRecord]:
    """Make a grant record by id, with changes."""
    return grant


@pytest.fixture(name="news")
def news_fixture() -> Callable[..., Any]:
    """One turn of the feed pump."""
    return news


@pytest.fixture(name="interposed")
def interposed_fixture() -> type[Interposed]:
    """Wrap a storage so that something happens between its calls."""
    return Interposed


@pytest.fixture(name="plain_writer")
def plain_writer_fixture() -> type[PlainWriter]:
    """A writer without an audit log."""
    return PlainWriter


@pytest.fixture
async def installation(tmp_path: Path) -> Installation:
    """A cluster as `init` founds it, before any broker served it."""
    path, key, clock = tmp_path / "served.db", tmp_path / "kms.key", FakeClock(AT)
    create_key_file(key)
    async with open_sqlite(f"sqlite:///{path}") as storage, open_kms(f"local:{key}") as kms:
        record, root = await create_root(kms=[kms], now=clock.now())
        await storage.commit(Commit(inserts=(record, *initial_manifests(root.derive, root.cluster_id))))
    return Installation(path=path, root=b"", cluster_id=root.cluster_id, clock=clock)


@pytest.fixture
def remark() -> Callable[[int], list[Entry]]:
    """Entries of no consequence."""
    return lambda count: [BackupTaken(at=AT, actor="system", name=f"b{number}") for number in range(count)]
