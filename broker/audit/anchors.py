"""Where checkpoints are published so that whoever can rewrite the database cannot rewrite history unseen.

An anchor is useful as far as it is out of reach of the database: a log collector, a file on another disk. An anchor
that fails is counted and logged, and never blocks the log. Reading anchors back is `broker.audit.anchored`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

import structlog

from broker.audit.counters import Counters
from broker.audit.settings import AuditSettings

ANCHOR_DEADLINE_S = 5.0
_log = structlog.get_logger("tokenbroker.audit")


class Anchor(Protocol):
    """A place outside the database that keeps checkpoints."""

    async def publish(self, note: str) -> None:
        """Keep this signed note. Anything raised counts as a failure; the next checkpoint tries again."""
        ...


class LogAnchor:
    """Writes each checkpoint as one structured line, for the collector that already takes this process's output."""

    async def publish(self, note: str) -> None:
        _log.info("audit.checkpoint", note=note)


class FileAnchor:
    """Appends each checkpoint, and a blank line, to a file of mode 0600, and syncs it to disk.

    The file may be moved away between two checkpoints (rotation); a fresh one is made. One write at a time: while
    the disk holds one back, further checkpoints fail here instead of piling up threads.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path
        self._writing = False

    async def publish(self, note: str) -> None:
        """OSError: the file cannot be written, or the write before has not come back."""
        if self._writing:
            raise OSError(f"the anchor {self._path.name} still waits for an earlier write")
        self._writing = True
        await asyncio.to_thread(self._append, note)

    def _append(self, note: str) -> None:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "r+b") as file:
                text = note.encode() + b"\n"
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(max(0, end - 2))
                    if file.read(2) != b"\n\n":  # a write that a crash cut off must not swallow this note
                        text = b"\n\n" + text
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._writing = False


class Relay:
    """Brings checkpoints to one anchor: always the newest, so a slow anchor skips some and never falls behind."""

    def __init__(self, *, anchor: Anchor, counters: Counters) -> None:
        self._anchor = anchor
        self._counters = counters
        self._newest: str | None = None
        self._arrived = asyncio.Event()

    def offer(self, note: str) -> None:
        """Hand over a checkpoint; one that still waited is replaced, because the newer one vouches for it."""
        self._newest = note
        self._arrived.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._arrived.wait()
            await self.publish()

    async def publish(self) -> None:
        """Publish what waits, within `ANCHOR_DEADLINE_S`. A failure is counted and logged; nothing is raised."""
        note, self._newest = self._newest, None
        self._arrived.clear()
        if note is None:
            return
        try:
            async with asyncio.timeout(ANCHOR_DEADLINE_S):
                await self._anchor.publish(note)
        except asyncio.CancelledError:
            self._put_back(note)
            raise
        except Exception as error:  # noqa: BLE001 - an anchor is somebody else's code and must not stop the log
            self._counters.anchor_failures += 1
            _log.warning("audit.anchor_failed", anchor=type(self._anchor).__name__, error=repr(error))
        else:
            self._counters.anchored += 1

    def _put_back(self, note: str) -> None:
        if self._newest is None:
            self._newest = note


def anchors_of(settings: AuditSettings) -> tuple[Anchor, ...]:
    """The anchors that these settings ask for: always the log line, and the file if one is named."""
    if settings.anchor_file is None:
        return (LogAnchor(),)
    return (LogAnchor(), FileAnchor(path=settings.anchor_file))
