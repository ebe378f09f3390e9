"""Real SQLite files, a clock that is told the time, a storage that can fail, and short logs to tamper with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.audit.checkpoint import key_name
from broker.audit.entries import LeaseGranted
from broker.audit.journal import Journal
from broker.audit.note import Signer
from broker.audit.opening import open_journal
from broker.audit.settings import AuditSettings
from broker.clock import FakeClock
from storage.errors import Unavailable
from storage.port import Commit, Committed
from storage.sqlite import open_sqlite
from storage.sqlite.storage import SqliteStorage

SEED = bytes(range(32))
CLUSTER = "cl-test"
T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Unsteady:
    """A real storage whose commits can be held back, refused, or written and then denied. All else passes through."""

    def __init__(self, storage: SqliteStorage) -> None:
        self.storage = storage
        self.down = False
        self.deny_written = 0
        self.gates: list[asyncio.Event] = []
        self.hold: Callable[[Commit], bool] = lambda commit: False
        self.held = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    async def commit(self, commit: Commit) -> Committed:
        if self.down:
            raise Unavailable
        if self.hold(commit):
            gate = asyncio.Event()
            self.gates.append(gate)
            committed = await self.storage.commit(commit)
            self.held += 1
            await gate.wait()
            return committed
        committed = await self.storage.commit(commit)
        if self.deny_written and commit.audit is not None:
            self.deny_written -= 1
            raise Unavailable
        return committed


Open = Callable[..., AbstractAsyncContextManager[Journal]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "broker.db"


@pytest.fixture
async def storage(database: Path) -> AsyncIterator[SqliteStorage]:
    """A database on disk."""
    async with open_sqlite(f"sqlite:///{database}") as opened:
        yield opened


@pytest.fixture
def unsteady(storage: SqliteStorage) -> Unsteady:
    """The database, and ways to make it fail."""
    return Unsteady(storage)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at the beginning of 2026."""
    return FakeClock(T0)


@pytest.fixture
def vkey() -> str:
    """The key that auditors pin."""
    return Signer(name=key_name(CLUSTER), seed=SEED).vkey


@pytest.fixture
def opening(storage: SqliteStorage, clock: FakeClock) -> Open:
    """Open a journal; keyword arguments override."""

    def make(on: Any = None, **over: Any) -> AbstractAsyncContextManager[Journal]:
        given: dict[str, Any] = {
            "seed": SEED,
            "cluster_id": CLUSTER,
            "instance": "one",
            "clock": clock,
            "settings": AuditSettings(close_deadline_s=1.0),
            **over,
        }
        return open_journal(storage if on is None else on, **given)

    return make


@pytest.fixture
def crashing(unsteady: Unsteady, opening: Open) -> Open:
    """Open a journal whose process "dies" at the end: nothing of the close reaches the disk."""

    @asynccontextmanager
    async def make(**over: Any) -> AsyncIterator[Journal]:
        async with opening(unsteady, **over) as journal:
            yield journal
            unsteady.down = True
        unsteady.down = False

    return make


@pytest.fixture
def granted(clock: FakeClock) -> Callable[..., list[LeaseGranted]]:
    """Make `count` entries, for leases numbered from `first`."""

    def make(count: int, first: int = 0) -> list[LeaseGranted]:
        return [
            LeaseGranted(
                at=clock.now(),
                actor="worker:w",
                lease=f"lease-{number}",
                token="github/ci",
                version=1,
                session="s",
                grant="g",
                ttl_s=300.0,
            )
            for number in range(first, first + count)
        ]

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait, in turns of real I/O, until something holds; fail after 5 s."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - it comes true in storage's threads, which know no Event
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def signed(clock: FakeClock) -> Callable[[Journal], Awaitable[None]]:
    """Let seconds pass until everything is under a checkpoint."""

    async def wait(journal: Journal) -> None:
        async with asyncio.timeout(5):
            while journal.unsigned:
                await clock.advance(1.0)
                await asyncio.sleep(0.002)

    return wait


@pytest.fixture
def history(opening: Open, crashing: Open, granted: Any, signed: Any) -> Callable[[], Awaitable[None]]:
    """Write three logs of instance one: closed (23 entries), crashed (9, of them 2 unsigned), closed (7)."""

    async def write() -> None:
        async with opening() as journal:
            for number in range(0, 21, 7):
                await journal.commit(granted(7, number))
                await signed(journal)
        async with crashing() as journal:
            await journal.commit(granted(6, 21))
            await signed(journal)
            await journal.commit(granted(2, 27))
        async with opening() as journal:
            await journal.commit(granted(5, 29))
            await signed(journal)

    return write


@pytest.fixture
def tamper(database: Path) -> Callable[[str, Sequence[Any]], int]:
    """Run SQL beside the broker, as somebody with the database file would; the number of rows changed."""
    import sqlite3
    from contextlib import closing

    def run(sql: str, parameters: Sequence[Any] = ()) -> int:
        with closing(sqlite3.connect(database, timeout=5)) as connection, connection:
            return connection.execute(sql, parameters).rowcount

    return run
