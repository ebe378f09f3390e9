"""What a broker needs of the machine it runs on: room, files to open, and a clock that is right."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.doctor.findings import Finding, failed, ok, warning

ROOM_LEAST: Final = 64 * 2**20
ROOM_WANTED: Final = 2**30
FILES_WANTED: Final = 4096
BUILT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock is right that shows a time before this program was written."""
AHEAD_MAX: Final = timedelta(minutes=5)


def examine_machine(folder: Path) -> Iterator[Finding]:
    """Look at the disk that `folder` is on, and at the limit of open files."""
    free = shutil.disk_usage(folder).free
    room = f"{free // 2**20} MiB are free where {folder} is"
    if free < ROOM_LEAST:
        yield failed("disk", f"only {room}; a broker stops granting when the disk is full: make room")
    elif free < ROOM_WANTED:
        yield warning("disk", f"{room}; make room before it is full")
    else:
        yield ok("disk", room)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)  # the broker raises its own to this
    if files != resource.RLIM_INFINITY and files < FILES_WANTED:
        yield warning(
            "open files",
            f"the limit is {files}, so about {files - 100} workers can connect: raise it (systemd: LimitNOFILE=65536)",
        )
    else:
        yield ok("open files", f"the limit is {'none' if files == resource.RLIM_INFINITY else files}")


def examine_clock(now: datetime, newest: datetime | None) -> Finding:
    """Compare the clock with the newest instant on record."""
    if now < BUILT:
        return failed("clock", f"it shows {now:%Y-%m-%d %H:%M}, which is long past: set it, and keep it with NTP")
    if newest is not None and newest - now > AHEAD_MAX:
        return failed(
            "clock",
            f"it is {newest - now} behind the newest record ({newest:%Y-%m-%dT%H:%M:%SZ}), so leases would live too "
            "long: set it, and keep it with NTP",
        )
    return ok("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}, not before the newest record")
