"""A whole broker on a free port, over an SQLite file of its own, and whatever a test needs to do to it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from broker import app, feed, foundations, serving
from broker.admin.asked import NewGrant, NewVersion
from broker.admin.put import Put
from broker.admin.workers import NewWorker
from broker.api.services import Services, make_services
from broker.app import Broker, open_broker
from broker.audit.encoding import decode
from broker.audit.entries import Entry
from broker.audit.report import Report
from broker.audit.source import StorageSource
from broker.audit.verify import verify_live
from broker.clock import Clock, FakeClock
from broker.leases.settings import LeaseSettings
from broker.session.settings import SessionSettings
from broker.settings import Settings, load_settings
from broker.setup.layout import Layout
from storage.catalog import open_storage
from storage.errors import Unavailable
from storage.port import Change, Commit, Committed, Storage
from storage.records import GrantRecord, LeaseRecord, SessionRecord, WorkerRecord
from storage.table import Key, Record

ACTOR = "admin:root"


class Moody:
    """A real storage that can be told to fail. All else passes through.

    refuse: commits that are refused. late_s: how long a commit takes to be confirmed after it was written.
    deaf: the feed cannot be read. hoards: nothing can be pruned. gate: what commits wait for before they are written.
    echo: what they wait for once they are written, before they are confirmed. blind: a kind of record of which several
    cannot be read together, and what that waits for before it is said.
    """

    def __init__(self, storage: Storage) -> None:
        self.inner = storage
        self.refuse: Callable[[Commit], bool] = lambda commit: False
        self.slow: Callable[[Commit], bool] = lambda commit: True
        self.late_s = 0.0
        self.deaf = False
        self.hoards = False
        self.gate: asyncio.Event | None = None
        self.echo: asyncio.Event | None = None
        self.blind: tuple[type[Record], asyncio.Event] | None = None
        self.waiting = self.unconfirmed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, commit: Commit) -> Committed:
        if self.refuse(commit):
            raise Unavailable("the disk is on strike")
        slow = self.slow(commit)
        if self.gate is not None and slow:
            self.waiting += 1
            await self.gate.wait()
        committed = await self.inner.commit(commit)
        if self.late_s and slow:
            await asyncio.sleep(self.late_s)
        if self.echo is not None and slow:
            self.unconfirmed += 1
            await self.echo.wait()
        return committed

    async def get_many(self, kind: type[Record], keys: Sequence[Key]) -> dict[Key, Record]:
        if self.blind is not None and self.blind[0] is kind:
            self.waiting += 1
            await self.blind[1].wait()
            raise Unavailable("the disk cannot be read")
        return await self.inner.get_many(kind, keys)

    async def prune(self, kind: type[Record], column: str, before: datetime, limit: int = 1000) -> int:
        if self.hoards:
            raise Unavailable("the broom is on strike")
        return await self.inner.prune(kind, column, before, limit)

    async def feed(self, after: int, limit: int = 1000) -> list[Change]:
        if self.deaf:
            raise Unavailable("the feed is on strike")
        return await self.inner.feed(after, limit)


@dataclass(kw_only=True)
class House:
    """A running broker and its admin services. environ: what its configuration was read with."""

    config: Path
    environ: dict[str, str]
    settings: Settings
    broker: Broker
    storage: Moody
    services: Services
    url: str
    workers: dict[str, Any] = field(default_factory=dict)

    async def put(self, token: str, value: bytes = b"secret", **options: Any) -> Put:
        """Store a value as the token's next version, and wait until the broker acts on it."""
        put = await self.services.putter.put(NewVersion(token=token, value=value, **options), actor=ACTOR)
        await self.settled()
        return put

    async def grant(
        self, subject: str, pattern: str, ttl_s: int = 60, max_ttl_s: int = 3600, expires_at: datetime | None = None
    ) -> GrantRecord:
        new = NewGrant(subject=subject, pattern=pattern, ttl_s=ttl_s, max_ttl_s=max_ttl_s, expires_at=expires_at)
        record = await self.services.grants.add(new, actor=ACTOR)
        await self.settled()
        return record

    async def register(self, who: Any, **options: Any) -> WorkerRecord:
        new = NewWorker(name=who.name, public_key=who.public_key, **options)
        record = await self.services.workers.register(new, actor=ACTOR)
        await self.settled()
        return record

    async def settled(self) -> None:
        """Return when the broker acts on every change made so far."""
        await self.broker.feed.caught_up()

    async def row(self, lease: str) -> LeaseRecord:
        record = await self.storage.get(LeaseRecord, (lease,))
        assert record is not None
        found: LeaseRecord = record
        return found

    async def leases(self) -> list[LeaseRecord]:
        return await every(self.storage, LeaseRecord)

    async def sessions(self) -> list[SessionRecord]:
        return await every(self.storage, SessionRecord)

    async def entries(self, kind: type[Entry]) -> list[Any]:
        """The audit entries of one kind, oldest first."""
        return [entry for entry in await audit_entries(self.storage) if isinstance(entry, kind)]

    async def entries_within(self, kind: type[Entry], count: int, within_s: float = 30.0) -> list[Any]:
        """As `entries`, once there are `count` of them; refusals are answered before their entry is durable."""

        async def there() -> bool:
            return len(await self.entries(kind)) >= count

        await until(there, within_s)
        return await self.entries(kind)

    async def verified(self) -> Report:
        return await verify_live(self.storage, vkey=self.broker.journal.vkey, leases=await self.leases())

    async def elapse(self, seconds: float) -> None:
        """Move the house's clock on in steps, short enough that the feed is read between them."""
        clock = self.broker.clock
        assert isinstance(clock, FakeClock)
        while seconds > 0:
            step = min(seconds, 2.0)
            seconds -= step
            await clock.advance(step)
            await until(lambda: self.broker.feed._read_at == clock.monotonic())
            await self.broker.desk.drained()

    async def until(self, condition: Callable[[], Awaitable[bool] | bool], within_s: float = 30.0) -> None:
        await until(condition, within_s)


async def until(condition: Callable[[], Awaitable[bool] | bool], within_s: float = 30.0) -> None:
    """Return as soon as the condition holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if not isinstance(holds, bool):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.01)


async def every(storage: Any, kind: Any) -> list[Any]:
    """All rows of a table."""
    rows: list[Any] = []
    after = None
    while True:
        page = await storage.select(kind, after=after)
        rows += page.records
        after = page.next
        if after is None:
            return rows


async def audit_entries(storage: Any) -> list[Entry]:
    """Every entry of every audit log."""
    source = StorageSource(storage=storage)
    found: list[Entry] = []
    for facts in await source.logs():
        async for batch in source.batches(facts.log):
            found += [decode(entry) for entry in batch.entries]
    return found


def settle_in(founded: Layout, folder: Path) -> Path:
    """A copy of a founded cluster in a folder of its own, sharing the KMS key; the path of its configuration."""
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(founded.database, folder / "broker.db")
    text = founded.config.read_text().replace(str(founded.database), str(folder / "broker.db"))
    config = folder / "broker.toml"
    config.write_text(text)
    return config


@asynccontextmanager
async def open_house(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    clock: Clock | None = None,
    session: dict[str, Any] | None = None,
    leases: dict[str, Any] | None = None,
    kms: Callable[[Any], Any] | None = None,
    **environ: str,
) -> AsyncIterator[House]:
    """Serve the cluster of `config` in this process. session, leases: bounds that differ; environ: settings.

    What is put in place of the broker's parts stays until the test ends, so houses may close in any order.
    """
    here = {"TOKENBROKER_SERVER__LISTEN": "127.0.0.1:0", "TOKENBROKER_ROTATION__HOSTS": "127.0.0.1"}
    around = here | {f"TOKENBROKER_{name.upper()}": value for name, value in environ.items()}
    settings = load_settings(config, around)
    opened: list[Moody] = []
    kms_of = getattr(foundations.open_kms, "beneath", foundations.open_kms)

    @asynccontextmanager
    async def moody_storage(url: str) -> AsyncIterator[Any]:
        async with open_storage(url) as storage:
            opened.append(Moody(storage))
            yield opened[-1]

    @asynccontextmanager
    async def other_kms(uri: str, **options: Any) -> AsyncIterator[Any]:
        async with kms_of(uri, **options) as key:
            yield key if kms is None else kms(key)

    other_kms.beneath = kms_of  # type: ignore[attr-defined]  # what the next house of the test is to open keys with
    monkeypatch.setattr(app, "open_storage", moody_storage)
    monkeypatch.setattr(foundations, "open_kms", other_kms)
    if isinstance(clock, FakeClock):
        monkeypatch.setattr(feed, "_POLL_S", 0.01)
    monkeypatch.setattr(app, "SessionSettings", _with(SessionSettings, session or {}))
    monkeypatch.setattr(app, "LeaseSettings", _with(LeaseSettings, leases or {}))
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(open_broker(settings, clock=clock))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        loops = [tasks.create_task(loop) for loop in (broker.desk.run(), *broker.loops)]
        stack.callback(lambda: [loop.cancel() for loop in loops])
        stack.push_async_exit(_drained(broker, loops))
        url = await stack.enter_async_context(serving.listening(broker, "127.0.0.1", 0))
        services = make_services(
            root=broker.root,
            instance=settings.instance,
            clock=broker.clock,
            authority=broker.authority,
            storage=opened[0],
            vault=broker.vault,
            tokens=broker.tokens,
            leases=broker.leases,
            uses=broker.uses,
            vkey=broker.journal.vkey,
            scratch=config.parent,
            replicas=lambda: broker.roll.known,
            site=broker.site,
        )
        yield House(
            config=config,
            environ=around,
            settings=settings,
            broker=broker,
            storage=opened[0],
            services=services,
            url=url,
        )


def _drained(broker: Broker, loops: list[asyncio.Task[None]]) -> Any:
    """Waits for what is on its way, as `serve` does, unless the broker is coming down with an error."""

    async def leave(kind: Any, _error: Any, _traceback: Any) -> None:
        if kind is None and not any(loop.done() for loop in loops):
            await broker.desk.drained()

    return leave


def _with(kind: Callable[..., Any], changed: dict[str, Any]) -> Callable[..., Any]:
    return lambda **given: kind(**{**given, **changed})
