"""Laws among several processes on one database, each the program `second_process`. Not for adapters of one process.

To enrol, provide a fixture `url`: the URL of an empty database that `storage.catalog` can open:

    class TestMyProcesses(ProcessLaws):
        @pytest.fixture
        def url(self, tmp_path):
            return f"mine://{tmp_path}"
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from storage.bounds import unframe
from storage.catalog import open_storage
from storage.conformance import second_process
from storage.conformance.samples import lease
from storage.conformance.second_process import LOG, PARTS
from storage.port import Change, Commit, Storage
from storage.records import AuditBlockRecord, LeaseRecord
from storage.table import Key, R

ENDS_S = 60
"""How long a process may take to start, or to end."""


class ProcessLaws:
    """What one process does, another sees whole, in order, and cannot overwrite unseen; a subclass has `url`."""

    async def test_processes_that_count_one_record_win_each_revision_once(self, url: str) -> None:
        """Three processes that count one record up win no revision twice, and no step is lost."""
        async with open_storage(url) as storage:
            await storage.commit(Commit(inserts=[lease(0, acked_version=0)]))
            async with AsyncExitStack() as stack:
                counting = [await stack.enter_async_context(_process(url, "count", name)) for name in "abc"]
                won = [rev for process in counting for rev in await process.acknowledged(20)]
                won += [rev for process in counting for rev in await process.end()]
            found = await storage.get(LeaseRecord, lease(0).key)
            assert found is not None
            assert len(won) == len(set(won))
            assert max(won) <= found.rev
            assert found.acked_version == found.rev - 1

    async def test_processes_share_audit_numbers_and_positions(self, url: str) -> None:
        """Two processes that append and announce at once use no number and no position twice, and leave no gap."""
        async with open_storage(url) as storage, AsyncExitStack() as stack:
            writing = [await stack.enter_async_context(_process(url, "write", name)) for name in "ab"]
            said = [each for process in writing for each in await process.acknowledged(30)]
            said += [each for process in writing for each in await process.end()]
            stored = await _whole_commits(storage)
            assert {label: (seq, position) for label, seq, position in said}.items() <= stored.items()

    async def test_who_follows_the_feed_misses_nothing_of_two_processes(self, url: str) -> None:
        """A third process that reads on from where it was gets every line once, in the order in which they stay."""
        async with open_storage(url) as storage, AsyncExitStack() as stack:
            writing = [await stack.enter_async_context(_process(url, "write", name)) for name in "ab"]
            followed: list[Change] = []
            async with asyncio.timeout(ENDS_S):
                while len({str(change.key[0])[0] for change in followed}) < 2 or len(followed) < 100:
                    followed += await storage.feed(followed[-1].position if followed else 0, 3)
            for process in writing:
                await process.end()
            assert followed == (await _feed(storage))[: len(followed)]

    async def test_a_killed_process_leaves_whole_commits_and_nobody_waiting(self, url: str) -> None:
        """Of two processes one is killed amid commits: all that was acknowledged is there, nothing half; one lasts."""
        async with open_storage(url) as storage, AsyncExitStack() as stack:
            survivor = await stack.enter_async_context(_process(url, "write", "survivor"))
            said = await survivor.acknowledged(5)
            for life in range(3):
                victim = await stack.enter_async_context(_process(url, "write", f"victim{life}"))
                said += await victim.acknowledged(10 + 10 * life)
                said += await victim.kill()
                said += await survivor.acknowledged(10)
            said += await survivor.end()
            stored = await _whole_commits(storage)
            assert {label: (seq, position) for label, seq, position in said}.items() <= stored.items()


class _Process:
    """A running `second_process`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def acknowledged(self, count: int) -> list[Any]:
        """The next `count` things that it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(ENDS_S):
            lines = [await self._process.stdout.readline() for _ in range(count)]
        assert all(lines), "the process ended by itself"
        return [json.loads(line) for line in lines]

    async def end(self) -> list[Any]:
        """Let it finish; what it said since."""
        return await self._last_words(None)

    async def kill(self) -> list[Any]:
        """Kill it as a power cut would; what it said since."""
        self._process.kill()
        return await self._last_words(-9)

    async def _last_words(self, status: int | None) -> list[Any]:
        async with asyncio.timeout(ENDS_S):
            rest, _ = await self._process.communicate(b"")  # an empty input ends at once
        assert self._process.returncode == (status or 0)
        return [json.loads(line) for line in rest.splitlines()]


@asynccontextmanager
async def _process(url: str, story: str, name: str) -> AsyncIterator[_Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        second_process.__name__,
        url,
        story,
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield _Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _whole_commits(storage: Storage) -> dict[str, tuple[int, int]]:
    """Number and position of each commit of the story `write`; fails unless all are whole, and numbered densely."""
    leases = Counter(record.reason for record in await _all(storage, LeaseRecord))
    blocks = await _all(storage, AuditBlockRecord)
    audited = [entry.decode() for block in blocks for entry in unframe(block.entries)]
    changes = await _feed(storage)
    announced = [str(change.key[0]) for change in changes]
    assert set(leases.values()) == {PARTS}
    assert len(audited) == len(set(audited))
    assert set(audited) == set(leases)
    assert sorted(announced) == sorted(audited)
    assert [(block.log, block.seq) for block in blocks] == [(LOG, seq) for seq in range(len(blocks))]
    assert [change.position for change in changes] == list(range(1, len(changes) + 1))
    positions = {str(change.key[0]): change.position for change in changes}
    return {label: (seq, positions[label]) for seq, label in enumerate(audited)}


async def _all(storage: Storage, kind: type[R]) -> list[R]:
    found: list[R] = []
    after: Key | None = None
    while True:
        page = await storage.select(kind, after=after)
        found += page.records
        after = page.next
        if after is None:
            return found


async def _feed(storage: Storage) -> list[Change]:
    found: list[Change] = []
    while changes := await storage.feed(found[-1].position if found else 0):
        found += changes
    return found
