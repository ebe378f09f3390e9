"""Filling a database: cut at any moment it stays closed, goes on, and ends equal; and what must not be filled from."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from broker.errors import StartRefused
from broker.moving.filling import Filled, fill
from broker.moving.samples import RANDOM, Samples
from storage import records
from storage.catalog import open_storage
from storage.conformance.samples import at, following, lease, sample
from storage.errors import Refused, Unfinished
from storage.port import AuditAppend, Commit
from storage.records import AuditLogRecord, LeaseRecord, ReplicaRecord, TokenRecord, VersionRecord

TOKENS = 900

FILL_UNTIL_KILLED = """
import asyncio, os, signal, sys
from broker.moving.filling import fill
from storage.catalog import open_storage

class Killing:
    def begin(self, what, *, total, done=0):
        if what == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
    def advance(self, steps):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

left = int(sys.argv[4])

async def main():
    async with open_storage(sys.argv[1]) as source:
        await fill(source, sys.argv[2], progress=Killing())

asyncio.run(main())
"""


class Quiet:
    """Progress that nobody looks at. began: what was begun, with how much of it done already."""

    def __init__(self) -> None:
        self.began: dict[str, int] = {}

    def begin(self, what: str, *, total: int | None, done: int = 0) -> None:
        self.began[what] = done

    def advance(self, steps: int) -> None: ...


async def _make(url: str) -> None:
    async with open_storage(url) as storage:
        await storage.commit(Commit(inserts=[sample(kind, 1) for kind in records.ALL if kind is not ReplicaRecord]))
        for start in range(2, TOKENS, 100):
            numbers = range(start, min(start + 100, TOKENS))
            tokens = [sample(TokenRecord, n) for n in numbers]
            versions = [sample(VersionRecord, n, sealed=b"s" * 20_000) for n in numbers]
            await storage.commit(
                Commit(inserts=[*tokens, *versions], audit=AuditAppend(7, (b"e",)), announce=[("token", ("x",))])
            )
        await storage.commit(Commit(updates=[following(sample(TokenRecord, 5))]))


async def _rows(url: str) -> dict[Any, Any]:
    async with open_storage(url) as storage:
        found = {("position",): await storage.position()}
        for kind in records.ALL:
            after = None
            while True:
                page = await storage.select(kind, after=after)
                found.update({(kind.table.name, *record.key): record for record in page.records})
                after = page.next
                if after is None:
                    break
        return found


async def _fill(source_url: str, target_url: str, **how: Any) -> Filled:
    async with open_storage(source_url) as source:
        return await fill(source, target_url, progress=how.pop("progress", Quiet()), **how)


@pytest.fixture
async def source(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/source.db"
    await _make(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/target.db"
    server = request.getfixturevalue("postgres")
    made: str = server.url(server.create())
    return made


def _kill_at(source: str, target: str, what: str, steps: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL_UNTIL_KILLED, source, target, what, str(steps)],
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


async def test_killed_again_and_again_it_goes_on(source: str, target: str) -> None:
    """kill -9 in the first table, within versions, behind them, comparing: closed each time, equal at the end."""
    cuts = [
        ("", 1),
        ("", 7),
        ("copying version", 10**9),
        ("", 3),
        ("copying root", 10**9),
        ("comparing version", 10**9),
    ]
    for what, steps in cuts:
        _kill_at(source, target, what, steps)
        with pytest.raises(Unfinished):
            await open_storage(target).__aenter__()
    progress = Quiet()
    filled = await _fill(source, target, progress=progress)
    assert filled.problems == []
    assert not [what for what in progress.began if what.startswith("copying")], "everything was there already"
    assert await _rows(target) == await _rows(source)
    assert filled.records["token"] == filled.records["version"] == TOKENS - 1
    async with open_storage(target) as storage:
        assert (await storage.commit(Commit(audit=AuditAppend(7, (b"e",))))).first_seq == 9


async def test_a_source_that_was_served_meanwhile_is_copied_anew(source: str, target: str) -> None:
    """Between two runs a broker opened a log and changed a row that was copied already: the end has what is now."""
    _kill_at(source, target, "copying root", 10**9)
    async with open_storage(source) as storage:
        served = Commit(inserts=[sample(AuditLogRecord, 8)], updates=[following(sample(LeaseRecord, 1))])
        await storage.commit(served)
    assert (await _fill(source, target)).problems == []
    assert await _rows(target) == await _rows(source)


async def test_starting_over_throws_away_what_was_copied(source: str, target: str) -> None:
    """With start_over every table is copied from its first record."""
    _kill_at(source, target, "copying root", 10**9)
    progress = Quiet()
    assert (await _fill(source, target, progress=progress, start_over=True)).problems == []
    assert progress.began["copying version"] == 0
    assert await _rows(target) == await _rows(source)


async def test_a_copy_that_is_not_proved_stays_closed(source: str, target: str) -> None:
    """What the proof finds is handed on, and nobody opens the target."""

    async def prove(storage: Any, samples: Samples) -> list[str]:
        assert len(list(samples)) > 1
        return ["a MAC is wrong"]

    assert (await _fill(source, target, prove=prove)).problems == ["a MAC is wrong"]
    with pytest.raises(Unfinished):
        await open_storage(target).__aenter__()


async def test_a_copy_that_differs_stays_closed(source: str, target: str) -> None:
    """A row that was changed in the half-filled target is named, and nobody opens it."""
    _kill_at(source, target, "copying root", 10**9)
    await _spoil(target)
    filled = await _fill(source, target)
    assert filled.problems == ["table token: ('name-000005',) differs"]
    with pytest.raises(Unfinished):
        await open_storage(target).__aenter__()


async def _spoil(url: str) -> None:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as database:
            database.execute("UPDATE token SET disabled = 1 - disabled WHERE name = 'name-000005'")
    else:
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE tokenbroker.token SET disabled = 1 - disabled WHERE name = 'name-000005'")
        await connection.close()


async def test_a_full_target_is_refused(source: str, target: str) -> None:
    """What was filled to its end is not filled again."""
    await _fill(source, target)
    with pytest.raises(Refused, match="holds records already"):
        await _fill(source, target)


async def test_a_source_with_a_living_replica_is_refused(source: str, tmp_path: Path) -> None:
    """A replica that beats is named, and nothing is begun; one that was killed and stands still is no obstacle."""
    replica = sample(ReplicaRecord, 1, instance="east-1", ended_at=None)
    target = f"sqlite:///{tmp_path}/target.db"
    async with open_storage(source) as storage:
        await storage.commit(Commit(inserts=[replica]))
        stop = asyncio.Event()

        async def beat() -> None:
            now = replica
            while not stop.is_set():
                now = following(now, seen_at=at(now.rev))
                await storage.commit(Commit(updates=[now]))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await stop.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(beat())
            with pytest.raises(StartRefused, match="served by east-1"):
                await fill(storage, target, progress=Quiet())
            stop.set()
        assert not (tmp_path / "target.db").exists()
        assert (await fill(storage, target, progress=Quiet())).problems == []


async def test_a_source_that_changes_while_it_is_copied_is_refused(source: str, tmp_path: Path) -> None:
    """A broker that starts in the middle opens a log: the copy is not let open."""
    target = f"sqlite:///{tmp_path}/target.db"
    async with open_storage(source) as storage:

        async def prove(_storage: Any, _samples: Samples) -> list[str]:
            await storage.commit(Commit(inserts=[sample(AuditLogRecord, 9)]))
            return []

        with pytest.raises(StartRefused, match="was served while"):
            await fill(storage, target, progress=Quiet(), prove=prove)
    with pytest.raises(Unfinished):
        await open_storage(target).__aenter__()


def test_samples_have_one_of_each_data_key_and_some_more() -> None:
    """Of 1000 versions under 40 data keys each data key is there, no destroyed version, and no more than promised."""
    samples = Samples()
    for n in range(1000):
        samples.see(sample(VersionRecord, n, token=f"t{n}", data_key=f"k{n % 40}", stage="current"))
        samples.see(sample(VersionRecord, n, token=f"d{n}", data_key="destroyed", stage="destroyed"))
        samples.see(lease(n))
    chosen = list(samples)
    assert len(chosen) == len(set(chosen))
    assert RANDOM <= len(chosen) <= RANDOM + 40
    assert {int(str(token)[1:]) % 40 for token, _ in chosen} == set(range(40))
    assert all(str(token).startswith("t") for token, _ in chosen)
    assert any(int(str(token)[1:]) >= 500 for token, _ in chosen), "late ones have a chance too"
