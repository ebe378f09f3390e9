"""Whatever several sessions do, in any order: what workers believe, what memory holds and what is on record agree."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import feed
from broker.admin.asked import NewGrant, NewVersion
from broker.admin.errors import NoFormer
from broker.admin.grants import GrantAdmin
from broker.admin.workers import NewWorker, WorkerAdmin
from broker.app import Broker, open_broker
from broker.audit.encoding import decode
from broker.audit.entries import LeaseGranted
from broker.audit.source import StorageSource
from broker.authority.manifest import initial_manifests
from broker.clock import FakeClock, SystemClock
from broker.ids import time_ordered_id
from broker.session.session import Session
from broker.session.settings import SessionSettings
from broker.settings import read_settings
from broker.vault.root import create_root
from kms.catalog import open_kms
from kms.local import create_key_file
from kms.port import Caller
from storage.catalog import open_storage
from storage.port import Commit
from storage.records import LeaseRecord, SessionRecord

WORKERS = ("w0", "w1")
TOKENS = ("t/a", "t/b", "t/c")
TTL_S, MAX_TTL_S = 20, 50
NAMES = itertools.count()


def public_key(name: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(name.encode() * 16).public_key().public_bytes_raw()


class Line(asyncio.Transport):
    """A connection that gives every frame that is written on it to `take`."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._take = take

    def write(self, data: Any) -> None:
        rest = bytes(data)
        while rest:
            length, start = rest[1], 2
            if length >= 126:
                start = 4 if length == 126 else 10
                length = int.from_bytes(rest[2:start], "big")
            self._take(json.loads(rest[start : start + length]))
            rest = rest[start + length :]

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        raise AssertionError("nothing here is slow")


class Worker:
    """One session from the worker's side: what it has been told, and so what it believes to hold, until when."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.ids = itertools.count(1)
        self.believes: dict[str, tuple[str, int, float]] = {}
        self.stated: dict[str, int] = {}
        broker = world.broker
        now = broker.clock.now()
        record = SessionRecord(
            session=time_ordered_id(now), worker=name, instance="i", source="10.0.0.1", client="", connected_at=now
        )
        groups = ()
        self.session = Session(
            record=record,
            public_key=public_key(name),
            caller=Caller(worker=name, groups=groups),
            entitlements=broker.grants.for_worker(name, groups),
            transport=Line(lambda frame: world.told(self, frame)),
            desk=broker.desk,
            closes=broker.sessions,
            settings=SessionSettings(),
        )

    def ask(self, kind: str, **fields: Any) -> None:
        self.session.receive(json.dumps({"type": kind, "id": next(self.ids), **fields}).encode())

    def hear(self, frame: dict[str, Any], now: float) -> None:
        assert frame["type"] != "error" or frame["code"] in {"denied", "not_found"}, frame
        if frame["type"] == "granted":
            self.world.granted.add(frame["lease"])
            self.believes[frame["lease"]] = (frame["token"], frame["version"], now + frame["ttl_s"])
        if frame["type"] == "renewed":
            for item in frame["leases"]:
                token, version, _ = self.believes[item["lease"]]
                self.believes[item["lease"]] = (token, version, now + item["ttl_s"])
        for item in frame.get("live", ()):
            token = self.world.tokens_of[item["lease"]][0]
            self.believes[item["lease"]] = (token, self.stated[item["lease"]], now + item["ttl_s"])
        for item in (frame, *frame.get("rotated", ())):
            if item["type"] == "rotated":
                _, _, until = self.believes[item["lease"]]
                self.believes[item["lease"]] = (item["token"], item["version"], until)
        over = frame["leases"] if frame["type"] in {"revoked", "released"} else ()
        for lease in (*over, *(item["lease"] for item in frame.get("gone", ()))):
            self.believes.pop(lease, None)
        if frame["type"] == "resumed":
            # A lease that is resumed, or given up for another one, was that of an earlier session.
            for item in (*frame["live"], *frame["gone"]):
                for other in self.world.open:
                    if other is not self and item.get("code") != "gone":
                        other.believes.pop(item["lease"], None)


class World:
    """A broker without sockets, its operators, its workers, and what they did."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        authority, clock = broker.authority, broker.clock
        self.book = broker.tokens.book
        self.keys = broker.tokens.keys
        self.putter = broker.tokens.putter
        self.tokens = broker.tokens.admin
        self.grants = GrantAdmin(authority=authority, clock=clock)
        self.workers = WorkerAdmin(authority=authority, clock=clock)
        self.open: list[Worker] = []
        self.granted: set[str] = set()
        self.tokens_of: dict[str, tuple[str, int]] = {}
        self.grant_of: dict[str, str] = {}
        self.unheard: list[tuple[Worker, dict[str, Any], float]] = []

    async def furnish(self) -> None:
        await self.keys.bootstrap()
        for name in WORKERS:
            await self.workers.register(NewWorker(name=name, public_key=public_key(name)), actor="a")
            await self.allow(name)
        for token in TOKENS:
            await self.putter.put(NewVersion(token=token, value=b"v"), actor="a")
        await self.settle()

    async def allow(self, worker: str) -> None:
        new = NewGrant(subject=f"worker:{worker}", pattern="t/*", ttl_s=TTL_S, max_ttl_s=MAX_TTL_S, previous=True)
        self.grant_of[worker] = (await self.grants.add(new, actor="a")).id

    async def settle(self) -> None:
        """Let the broker act on everything, and the workers hear of it."""
        for _ in range(2):
            await self.broker.feed.caught_up()
            await self.broker.desk.drained()
            await asyncio.sleep(0)
        for lease in await self.rows():
            self.tokens_of[lease.lease] = (lease.token, lease.version)
        unheard, self.unheard = self.unheard, []
        for worker, frame, told_at in unheard:
            if worker in self.open:
                worker.hear(frame, told_at)
        now = self.broker.clock.monotonic()
        for worker in self.open:
            worker.believes = {lease: held for lease, held in worker.believes.items() if held[2] > now}

    def told(self, worker: Worker, frame: dict[str, Any]) -> None:
        """A frame has been written: it is heard when the broker has come to rest, in this order."""
        self.unheard.append((worker, frame, self.broker.clock.monotonic()))

    async def rows(self) -> list[LeaseRecord]:
        return (await self.broker.storage.select(LeaseRecord)).records

    async def elapse(self, seconds: float) -> None:
        clock = self.broker.clock
        assert isinstance(clock, FakeClock)
        for _ in range(int(seconds / 2) + 1):
            await clock.advance(min(seconds, 2.0))
            seconds -= 2.0
            for _ in iter(lambda: self.broker.feed._read_at == clock.monotonic(), True):
                await asyncio.sleep(0)
            await self.settle()
            if seconds <= 0:
                return

    async def do(self, move: tuple[str, int, int]) -> None:
        """One move; numbers choose among what there is."""
        kind, one, two = move
        known = sorted(self.tokens_of)
        some = list(dict.fromkeys(known[(one + step * two) % len(known)] for step in range(3))) if known else []
        if kind in {"connect", "disconnect"}:
            await self.come_or_go(kind, one)
        elif kind in {"lease", "renew", "release", "resume", "report"}:
            if self.open:
                self.request(kind, self.open[one % len(self.open)], two, some)
        elif kind == "revoke":
            if some:
                chosen = {"lease": some[0], "token": None, "worker": None}
                await self.broker.leases.revoke(**chosen, reason="r", actor="a", wait_s=0.0)
        elif kind == "elapse":
            await self.settle()
            await self.elapse(0.5 + one % 13)
        else:
            await self.operate(kind, WORKERS[one % len(WORKERS)], TOKENS[two % len(TOKENS)])

    async def come_or_go(self, kind: str, one: int) -> None:
        if kind == "connect" and len(self.open) < 4:
            self.open.append(Worker(self, WORKERS[one % len(WORKERS)]))
            socket: Any = None  # used only to close, which nothing here brings about
            await self.broker.sessions.opened(self.open[-1].session, socket, key_sha256="")
        elif kind == "disconnect" and self.open:
            worker = self.open.pop(one % len(self.open))
            await self.broker.sessions.closed(worker.session, 1006)

    def request(self, kind: str, worker: Worker, two: int, some: list[str]) -> None:
        if kind == "lease":
            more = {"ttl_s": 1 + two % 30} if two % 2 else {}
            stage = {"stage": "previous"} if two % 5 > 2 else {}
            worker.ask("lease", token=TOKENS[two % len(TOKENS)], **more, **stage)
        elif some and kind == "resume":
            stated = {lease: self.tokens_of[lease][1] for lease in some}
            worker.stated |= stated
            worker.ask("resume", leases=[{"lease": lease, "version": version} for lease, version in stated.items()])
        elif some and kind == "report":
            event = ("rejected", "rate_limited", "ok")[two % 3]
            frames = [{"type": "report", "lease": lease, "event": event, "version": 1 + two % 4} for lease in some]
            for frame in frames:
                worker.session.receive(json.dumps(frame).encode())
        elif some:
            worker.ask(kind, leases=some)

    async def operate(self, kind: str, worker: str, token: str) -> None:
        if kind == "rotate":
            await self.putter.put(NewVersion(token=token, value=b"next"), actor="a")
        elif kind in {"back", "retire"}:
            with suppress(NoFormer):
                head = await self.book.token(token)
                if kind == "back":
                    await self.tokens.rollback(token, actor="a")
                elif head.previous:
                    await self.tokens.retire(token, head.previous, actor="a")
        elif kind in {"disable", "enable"}:
            await getattr(self.tokens, kind)(token, actor="a")
        elif kind == "forbid" and worker in self.grant_of:
            await self.grants.remove(self.grant_of.pop(worker), actor="a")
        elif kind == "allow" and worker not in self.grant_of:
            await self.allow(worker)

    async def check(self) -> None:
        """What must hold whenever the broker has come to rest."""
        context, now = self.broker.context, self.broker.clock.now()
        rows = {row.lease: row for row in await self.rows()}
        live = {lease: row for lease, row in rows.items() if row.state == "live" and row.expires_at > now}
        for worker in self.open:
            own = {lease for lease, row in live.items() if row.session == worker.session.session}
            assert {held.record.lease for held in worker.session.leases.values()} >= own, "memory misses a live lease"
            assert set(worker.believes) == own, "the worker believes otherwise"
            for lease, (token, version, until) in worker.believes.items():
                head = context.heads.known.get(token)
                follows = None if head is None else head.leasable(live[lease].stage, live[lease].worker)
                assert head is None or (follows is not None and version == follows.version), "it has another version"
                assert (
                    abs((live[lease].expires_at - now).total_seconds() - until + self.broker.clock.monotonic()) < 0.01
                )
                assert worker.name in self.grant_of, "nothing covers it"
        held = [each for worker in self.open for each in worker.session.leases.values()]
        assert {each.record.lease for each in held} == set(context.holdings.by_lease)
        for each in held:
            assert each.record == rows[each.record.lease], "memory differs from the record"
        assert self.granted <= set(rows)
        assert {row.expires_at <= row.max_expires_at for row in rows.values()} <= {True}


@asynccontextmanager
async def world(key: Path) -> AsyncIterator[World]:
    """A cluster of its own, in memory, with the broker's loops running."""
    clock = FakeClock(SystemClock().now())
    url, uri = f"memory:model-{next(NAMES)}", f"local:{key}"
    async with open_storage(url) as storage:
        async with open_kms(uri) as kms:
            record, root = await create_root(kms=[kms], now=clock.now())
        await storage.commit(Commit(inserts=[record, *initial_manifests(root.derive, root.cluster_id)]))
        chosen = read_settings(
            {
                "cluster": {"id": root.cluster_id},
                "storage": {"url": url},
                "kms": {"keys": [uri]},
                "server": {"instance": "i"},
            },
            {},
            where="test",
        )
        async with open_broker(chosen, clock=clock) as broker, asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(loop) for loop in (broker.desk.run(), *broker.loops)]
            made = World(broker)
            await made.furnish()
            yield made
            for loop in loops:
                loop.cancel()


async def recorded(storage: Any) -> set[str]:
    """The leases that the audit log says were granted."""
    source, found = StorageSource(storage=storage), set()
    async for batch in source.batches(1):
        entries = [decode(entry) for entry in batch.entries]
        found |= {entry.lease for entry in entries if isinstance(entry, LeaseGranted)}
    return found


KINDS = ["connect", "lease", "lease", "lease", "renew", "release", "resume", "resume", "disconnect"]
KINDS += ["rotate", "rotate", "back", "retire", "disable", "enable", "forbid", "allow", "revoke", "elapse", "elapse"]
KINDS += ["report", "report"]
MOVES = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 40), st.integers(0, 40)), min_size=5, max_size=30)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A KMS key for every example."""
    path = tmp_path_factory.mktemp("kms") / "kms.key"
    create_key_file(path)
    return path


@given(moves=MOVES, together=st.integers(1, 6))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_workers_memory_and_record_agree(key: Path, moves: list[tuple[str, int, int]], together: int) -> None:
    """Also when several moves meet in one batch: requests of one turn are decided together."""

    async def play() -> None:
        async with world(key) as each:
            await each.do(("connect", 0, 0))
            for index, move in enumerate(moves):
                await each.do(move)
                if index % together == 0:
                    await each.settle()
                    await each.check()
            await each.settle()
            await each.check()
            await each.elapse(MAX_TTL_S + 2.0 if len(moves) % 4 == 0 else 3.0)
            await each.check()
            assert each.granted <= await recorded(each.broker.storage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "_POLL_S", 0.001)
        asyncio.run(play())


def test_the_line_reads_what_sessions_write() -> None:
    """The test's own reading of frames, at the borders of the length field."""
    from broker.session.framing import text_frames

    for length in (10, 125, 126, 70_000):
        frames: list[dict[str, Any]] = []
        Line(frames.append).write(text_frames([json.dumps({"x": "y" * length}).encode()] * 2))
        assert [len(frame["x"]) for frame in frames] == [length, length]
