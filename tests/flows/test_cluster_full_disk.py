"""The disk of the database fills up under load: what cannot be recorded is refused, and with room it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOM = 192 * 2**20
SERVED_S = 30.0
"""From the moment at which the server runs and has room, as docs/explain/failure-modes.md says."""


@pytest.fixture
def small_disk(tmp_path: Path, postgres_servers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server all of whose files are in a file system of its own, `ROOM` bytes large; `disk` is where."""
    disk = tmp_path / "disk"
    disk.mkdir()
    # The server's own user looks for its files below.
    for folder in (disk, *tmp_path.parents[:2], tmp_path):
        folder.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=777", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(disk))
            running = postgres_servers.serving("max_wal_size = 64MB", "autovacuum = off")
            server = running.__enter__()
        try:
            yield server, disk
        finally:
            running.__exit__(None, None, None)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is; the file that holds it."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    return ballast


def stop_for_want_of_room(server: Any) -> None:
    """Have the server begin another file of its log until it stops."""
    until = time.monotonic() + 60
    with contextlib.suppress(subprocess.CalledProcessError):
        while time.monotonic() < until:
            server.sql("postgres", "SELECT pg_switch_wal()")
            server.sql("postgres", "SELECT pg_logical_emit_message(true, 'x', 'y')")
    while server.running:
        assert time.monotonic() < until, "the server found room for its log"
        time.sleep(0.1)


@pytest.mark.parametrize("what", ["tables", "log"])
async def test_a_full_disk(
    *,
    what: str,
    tmp_path: Path,
    small_disk: Any,
    serving: Any,
    clusters: Any,
    crews: Any,
    wire: Any,
    reckon: Any,
    stopwatch: Any,
) -> None:
    """Both replicas go red and none of them dies; once there is room, everybody is served, and nothing is half.

    Without room for its tables the server refuses to write; without room for its log (WAL) it stops.
    """
    server, disk = small_disk
    shared = await clusters.found(server.url(server.create()), tmp_path / "shared")
    async with clusters.running(shared, serving, one={}, two={}) as cluster:
        async with crews.at_work(cluster, wire) as crew:
            ballast = await asyncio.to_thread(fill, disk)
            if what == "log":
                await asyncio.to_thread(stop_for_want_of_room, server)
            for name in cluster.living:
                await cluster.until_ready(name, within_s=60, ready=False)
            ballast.unlink()
            if what == "log":
                await asyncio.to_thread(server.start)
            freed = time.monotonic()
            stopwatch.start()
            await crew.served(freed)
            stopwatch.stop(f"everybody is served after there was no room for {what}", bound_s=SERVED_S)
            await crew.let_go(crew.at("one")[0], of="two")
            for name in cluster.living:
                await cluster.until_ready(name, within_s=30)
            await crew.served(time.monotonic())
            assert len(cluster.living) == 2
        await reckon(crew)
