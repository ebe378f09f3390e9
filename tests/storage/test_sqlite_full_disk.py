"""A disk without room: typed, nothing half-written, and serving again once there is room."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILL_AND_FREE = """
import asyncio, json, os, resource, sys
from pathlib import Path
from storage.conformance.samples import lease
from storage.errors import StorageError
from storage.port import AuditAppend, Commit
from storage.records import AuditBlockRecord, LeaseRecord
from storage.sqlite import open_sqlite

path, how = sys.argv[1:]
ballast = Path(path).with_name("ballast")

def tighten():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
    else:
        ballast.write_bytes(bytes(600_000))

def free():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        ballast.unlink()

async def main():
    story = {}
    async with open_sqlite("sqlite:///" + path) as storage:
        tighten()
        done = 0
        try:
            for n in range(10_000):
                await storage.commit(Commit(inserts=[lease(n, reason="x" * 5000)], audit=AuditAppend(1, (b"e",))))
                done += 1
        except StorageError as error:
            story["error"], story["message"] = type(error).__name__, str(error)
        story["read_while_full"] = (await storage.get(LeaseRecord, lease(0).key)) is not None
        free()
        again = await storage.commit(Commit(inserts=[lease(done)], audit=AuditAppend(1, (b"e",))))
        story["seq_is_next"] = again.first_seq == done
        blocks = (await storage.select(AuditBlockRecord, descending=True, limit=1)).records
        last = (await storage.select(LeaseRecord, descending=True, limit=1)).records
        story["nothing_half"] = blocks[0].seq == done and last[0].key == lease(done).key
        story["done"] = done
    print(json.dumps(story))

asyncio.run(main())
"""


def _story(database: Path, how: str, command: list[str]) -> dict[str, object]:
    arguments = [*command, sys.executable, "-c", FILL_AND_FREE, str(database), how]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    story: dict[str, object] = json.loads(done.stdout)
    return story


def test_a_full_disk_is_storage_full_and_passes(database: Path) -> None:
    """On a file system without room commits are StorageFull, reads go on, and with room again so do commits."""
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mounted += ['mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(database.parent)]
    if shutil.which("unshare") is None or subprocess.run([*mounted, "true"], check=False).returncode:
        pytest.skip("needs user namespaces, to mount a small file system")
    story = _story(database, "disk", mounted)
    assert story["error"] == "StorageFull"
    assert "is full; free space" in str(story["message"])
    assert (story["read_while_full"], story["seq_is_next"], story["nothing_half"]) == (True, True, True)
    assert int(str(story["done"])) > 3


def test_a_file_size_limit_is_unavailable_and_passes(database: Path) -> None:
    """A write that the system refuses for another reason is Unavailable, with nothing half-written, and passes."""
    story = _story(database, "limit", [])
    assert story["error"] == "Unavailable"
    assert "check the disk and its limits" in str(story["message"])
    assert (story["read_while_full"], story["seq_is_next"], story["nothing_half"]) == (True, True, True)
    assert int(str(story["done"])) > 3
