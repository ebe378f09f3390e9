"""What was acknowledged survives kill -9; what was not is whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.bounds import unframe
from storage.port import Storage
from storage.records import AuditBlockRecord, LeaseRecord
from storage.sqlite import open_sqlite
from storage.sqlite.migrations import NEWEST

WRITE_UNTIL_KILLED = """
import asyncio, os, sys
from storage.conformance.samples import lease
from storage.port import AuditAppend, Commit
from storage.sqlite import open_sqlite

async def write(storage, caller):
    for n in range(10**6):
        number = int(sys.argv[2]) * 10**6 + n * 10 + caller
        # Three records, an audit entry and an announcement that all say the same number.
        await storage.commit(Commit(
            inserts=[lease(3 * number + part, acked_version=number) for part in range(3)],
            audit=AuditAppend(1, (str(number).encode(),)),
            announce=[("lease", (number,))],
        ))
        os.write(1, f"{number}\\n".encode())

async def main():
    async with open_sqlite("sqlite:///" + sys.argv[1]) as storage:
        await asyncio.gather(*(write(storage, caller) for caller in range(10)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 40, 400])
async def test_what_was_acknowledged_survives_kill_9(lines: int, database: Path) -> None:
    """A process killed in the middle of its commits: after reopening everything it had reported is there, whole."""
    acknowledged = _write_and_kill(database, lines)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        found = await _numbers(storage)
        assert set(acknowledged) <= set(found)
        # Those under way at the moment of the kill may be there or not; but at most one for each of the ten callers.
        assert len(found) - len(acknowledged) <= 10
        assert (await storage.check()).schema == NEWEST


async def test_killing_again_and_again_leaves_no_gap(database: Path) -> None:
    """Over several lives, each killed and the next one going on, numbers have no gap and nothing is lost."""
    acknowledged: list[int] = []
    for life in range(4):
        acknowledged += _write_and_kill(database, 30, life)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        assert set(acknowledged) <= set(await _numbers(storage))


def _write_and_kill(database: Path, lines: int, life: int = 0) -> list[int]:
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(database), str(life)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    reported = [int(process.stdout.readline()) for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    # What it wrote to the pipe before it died was acknowledged too.
    reported += [int(line) for line in process.stdout.read().splitlines()]
    process.stdout.close()
    assert process.wait(30) == -signal.SIGKILL
    return reported


async def _numbers(storage: Storage) -> list[int]:
    """The numbers found in records, audit and feed, which must agree and be whole."""
    leases: list[LeaseRecord] = []
    blocks: list[AuditBlockRecord] = []
    after = None
    while True:
        page = await storage.select(LeaseRecord, after=after)
        leases += page.records
        after = page.next
        if after is None:
            break
    while True:
        more = await storage.select(AuditBlockRecord, after=after)
        blocks += more.records
        after = more.next
        if after is None:
            break
    counts: dict[int, int] = {}
    for record in leases:
        counts[record.acked_version] = counts.get(record.acked_version, 0) + 1
    audited = [int(entry) for block in blocks for entry in unframe(block.entries)]
    assert set(counts.values()) <= {3}
    assert sorted(audited) == sorted(counts)
    assert [block.seq for block in blocks] == list(range(len(blocks)))
    announced = []
    position = 0
    while changes := await storage.feed(position):
        announced += [int(change.key[0]) for change in changes]
        position = changes[-1].position
    assert sorted(announced) == sorted(counts)
    return audited
