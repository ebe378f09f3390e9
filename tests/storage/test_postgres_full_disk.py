"""A database whose disk has no room: typed, nothing half-written, and serving again once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.conformance.samples import lease
from storage.errors import StorageFull
from storage.port import AuditAppend, Commit
from storage.postgres import open_postgres
from storage.records import AuditBlockRecord, LeaseRecord

ROOM = 64 * 2**20


@pytest.fixture
def small_disk(postgres_of_its_own: Any) -> Iterator[Path]:
    """A folder with a file system of its own, `ROOM` bytes large, in which the server may make a tablespace."""
    folder: Path = postgres_of_its_own.folder / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=777", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        (folder / "space").mkdir()
        (folder / "space").chmod(0o700)
        owner = postgres_of_its_own.folder.stat()
        os.chown(folder / "space", owner.st_uid, owner.st_gid)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_storage_full_and_passes(postgres_of_its_own: Any, small_disk: Path) -> None:
    """Without room commits are StorageFull and reads go on; with room again so do commits, and nothing is half."""
    server = postgres_of_its_own
    server.sql("postgres", f"CREATE TABLESPACE small LOCATION '{small_disk}/space'")
    server.sql("postgres", "CREATE DATABASE small TABLESPACE small")
    async with open_postgres(server.url("small")) as storage:
        await storage.commit(Commit(inserts=[lease(0)], audit=AuditAppend(1, (b"e",))))
        room = os.statvfs(small_disk)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(room.f_bavail * room.f_bsize - 2**20))
        done = 1
        refused = None
        while refused is None and done < 1000:
            rows = [lease(done, reason=os.urandom(20_000).hex())]
            try:
                await storage.commit(Commit(inserts=rows, audit=AuditAppend(1, (b"e",))))
                done += 1
            except StorageFull as error:
                refused = error
        assert "is full; free space" in str(refused)
        assert await storage.get(LeaseRecord, lease(0).key) == lease(0)
        ballast.unlink()
        again = await storage.commit(Commit(inserts=[lease(done)], audit=AuditAppend(1, (b"e",))))
        blocks = (await storage.select(AuditBlockRecord)).records
        leases = (await storage.select(LeaseRecord)).records
        assert again.first_seq == done > 1
        assert [block.seq for block in blocks] == list(range(done + 1))
        assert [record.key for record in leases] == [lease(n).key for n in range(done + 1)]
