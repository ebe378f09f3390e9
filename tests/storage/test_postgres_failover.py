"""A primary dies under commits and its synchronous standby takes over: nothing acknowledged is lost, nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from storage.bounds import unframe
from storage.conformance.samples import lease
from storage.errors import Unavailable
from storage.port import AuditAppend, Commit, Committed, Storage
from storage.postgres import open_postgres
from storage.records import AuditBlockRecord, LeaseRecord
from storage.table import R

SERVES_AGAIN_S = 10.0
"""The bound that docs/explain/failure-modes.md gives, from the promotion on."""

Acknowledged = dict[str, Committed]


@pytest.fixture
def pair(postgres_servers: ModuleType) -> Iterator[tuple[Any, Any]]:
    """A primary and its synchronous standby."""
    with postgres_servers.serving() as primary, postgres_servers.standby(primary) as standby:
        yield primary, standby


def _url(primary: Any, standby: Any, database: str) -> str:
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    return f"postgresql://postgres:{primary.password}@{hosts}/{database}?target_session_attrs=read-write"


async def _write(storage: Storage, name: str, acknowledged: Acknowledged, moved: asyncio.Event) -> None:
    """Commit without pause under labels that are never used again; what fails is not tried again."""
    for turn in range(10**6):
        label = f"{name}-{turn}"
        commit = Commit(
            inserts=[lease(0, lease=f"{label}-{part}", reason=label) for part in range(2)],
            audit=AuditAppend(1, (label.encode(),)),
            announce=[("lease", (label,))],
        )
        try:
            acknowledged[label] = await storage.commit(commit)
            moved.set()
        except Unavailable:
            await asyncio.sleep(0.01)


async def _reach(acknowledged: Acknowledged, count: int, moved: asyncio.Event) -> None:
    while len(acknowledged) < count:
        moved.clear()
        await moved.wait()


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_the_standby_takes_over(how: str, pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """After the primary was killed, or froze, every acknowledged commit is there once, and commits go on in time."""
    primary, standby = pair
    acknowledged: Acknowledged = {}
    moved = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with open_postgres(_url(primary, standby, primary.create())) as storage, asyncio.TaskGroup() as tasks:
        writing = [tasks.create_task(_write(storage, f"w{n}", acknowledged, moved)) for n in range(10)]
        async with asyncio.timeout(30):
            await _reach(acknowledged, 200, moved)
        getattr(primary, how)()
        await asyncio.to_thread(standby.promote)
        promoted_at = loop.time()
        async with asyncio.timeout(60):
            await _reach(acknowledged, len(acknowledged) + 1, moved)
        took_s = loop.time() - promoted_at
        with capsys.disabled():
            print(f"\nserved again {took_s:.1f} s after the promotion ({how}); bound {SERVES_AGAIN_S:g} s")
        async with asyncio.timeout(30):
            await _reach(acknowledged, len(acknowledged) + 200, moved)
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
        await _check(storage, acknowledged)
    assert took_s < SERVES_AGAIN_S


async def _check(storage: Storage, acknowledged: Acknowledged) -> None:
    leases, blocks = await _all(storage, LeaseRecord), await _all(storage, AuditBlockRecord)
    audited = [entry.decode() for block in blocks for entry in unframe(block.entries)]
    assert Counter(record.reason for record in leases) == dict.fromkeys(audited, 2)
    assert [block.seq for block in blocks] == list(range(len(blocks)))
    assert {label: done.first_seq for label, done in acknowledged.items()}.items() <= {
        label: seq for seq, label in enumerate(audited)
    }.items()
    assert len({done.position for done in acknowledged.values()}) == len(acknowledged)


async def _all(storage: Storage, kind: type[R]) -> list[R]:
    found: list[R] = []
    after = None
    while True:
        page = await storage.select(kind, after=after)
        found += page.records
        after = page.next
        if after is None:
            return found


async def test_a_standby_alone_is_waited_for(pair: tuple[Any, Any]) -> None:
    """A standby that nobody promotes does not serve: opening says Unavailable, as it may be promoted yet."""
    primary, standby = pair
    primary.kill()
    with pytest.raises(Unavailable):
        async with open_postgres(_url(primary, standby, "postgres")):
            pass


async def test_without_its_standby_the_primary_acknowledges_nothing(pair: tuple[Any, Any]) -> None:
    """While the synchronous standby is gone, commits are Unavailable and unknown; with it, they go on."""
    primary, standby = pair
    async with open_postgres(_url(primary, standby, primary.create()), answer_s=1) as storage:
        standby.freeze()
        with pytest.raises(Unavailable, match="may or may not exist"):
            await storage.commit(Commit(inserts=[lease(1)]))
        standby.thaw()
        async with asyncio.timeout(30):
            while True:
                try:
                    await storage.commit(Commit(inserts=[lease(2)]))
                    break
                except Unavailable:
                    continue
