"""kill -9 of a real process under load: nothing acknowledged is lost, and the next life verifies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from broker.audit.anchors import FileAnchor
from broker.audit.encoding import decode
from broker.audit.entries import LeaseGranted, LogOpened
from broker.audit.source import StorageSource
from broker.audit.verify import verify_live
from storage.sqlite import open_sqlite

LIVES = 3
ACKNOWLEDGED = 60
WRITER = """
import asyncio, sys
from pathlib import Path
from broker.audit.anchors import FileAnchor
from broker.audit.entries import LeaseGranted
from broker.audit.opening import open_journal
from broker.audit.settings import AuditSettings
from broker.clock import SystemClock
from storage.sqlite import open_sqlite

async def write(journal, clock, life, lane):
    number = 0
    while True:
        leases = [f"{life}-{lane}-{number + n}" for n in range(3)]
        await journal.commit([
            LeaseGranted(at=clock.now(), actor="worker:w", lease=lease, token="t", version=1, session="s", grant="g",
                         ttl_s=1.0)
            for lease in leases
        ])
        print("acknowledged", *leases, flush=True)
        number += 3

async def main(path, anchors, life):
    clock = SystemClock()
    settings = AuditSettings(checkpoint_every_s=0.02)
    async with open_sqlite(f"sqlite:///{path}") as storage:
        async with open_journal(storage, seed=bytes(range(32)), cluster_id="cl-test", instance="one", clock=clock,
                                settings=settings, anchors=[FileAnchor(path=Path(anchors))]) as journal:
            async with asyncio.TaskGroup() as tasks:
                for lane in range(8):
                    tasks.create_task(write(journal, clock, life, lane))

asyncio.run(main(*sys.argv[1:]))
"""


def one_life(database: Path, anchors: Path, life: int) -> set[str]:
    """Run the writer until enough is acknowledged, kill it, and give what it had acknowledged."""
    command = [sys.executable, "-c", WRITER, str(database), str(anchors), str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        while len(lines) < ACKNOWLEDGED:
            lines.append(process.stdout.readline())
            assert lines[-1], "the writer ended by itself"
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
    whole = [line.decode().split() for line in [*lines, *rest] if line.endswith(b"\n")]
    return {lease for words in whole if words[0] == "acknowledged" for lease in words[1:]}


async def test_killed_under_load(opening: Any, tmp_path: Path, vkey: str) -> None:
    """Every acknowledged grant is on record after each kill, each next log says what it found, and all verifies."""
    database, anchors = tmp_path / "live.db", tmp_path / "anchors"
    acknowledged: set[str] = set()
    for life in range(LIVES):
        acknowledged |= one_life(database, anchors, life)
    assert len(acknowledged) > LIVES * (ACKNOWLEDGED - 5) * 3
    async with open_sqlite(f"sqlite:///{database}") as storage:
        async with opening(storage, anchors=[FileAnchor(path=anchors)]):
            pass
        report = await verify_live(storage, vkey=vkey, anchors=anchors)
        assert report.problems == []
        assert report.logs == LIVES + 1
        recorded: set[str] = set()
        for log in range(1, LIVES + 2):
            async for batch in StorageSource(storage=storage).batches(log):
                for raw in batch.entries:
                    entry = decode(raw)
                    if isinstance(entry, LeaseGranted):
                        recorded.add(entry.lease)
                    if isinstance(entry, LogOpened):
                        assert entry.previous_closed == (log == 1)
    assert acknowledged <= recorded
