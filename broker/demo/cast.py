"""The workers of the demo as the story sees them: processes that say what they do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

ENDS_S: Final = 5.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A line that a worker wrote."""

    event: str
    version: int = 0
    kind: str = ""
    why: str = ""
    leased: bool = False


@dataclass(kw_only=True, slots=True)
class Actor:
    """One worker: what it said last. had: the versions that it was given; version: the latest of them."""

    name: str
    state: str = "starting"
    version: int = 0
    had: set[int] = field(default_factory=set)
    again: Report | None = None
    stopped_at: float | None = None
    commands: asyncio.StreamWriter | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, report: Report, now: float) -> None:
        """Take in what it said."""
        match report.event:
            case "leased":
                self.state = "working"
                self._given(report.version)
            case "changed" if report.kind == "rotated":
                self._given(report.version)
            case "rejected":
                self._given(report.version)
            case "stopped":
                self.state, self.stopped_at = "stopped", now
            case "again":
                self.again = report
            case "failed":
                self.state = f"failed: {report.why}"
        self.heard.set()

    def _given(self, version: int) -> None:
        self.version = version
        self.had.add(version)

    async def until(self, met: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a report makes `met` true; whether that came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not met():
                    self.heard.clear()
                    await self.heard.wait()
        except TimeoutError:
            return False
        return True

    async def ask_again(self) -> None:
        """Have it try to lease once more."""
        assert self.commands is not None, "it is on stage"
        self.commands.write(b"again\n")
        await self.commands.drain()


@asynccontextmanager
async def on_stage(
    actor: Actor, *arguments: str | Path, environ: Mapping[str, str], log: Path, monotonic: Callable[[], float]
) -> AsyncIterator[None]:
    """The worker's process; ended with the context, by its standard input first and by force if need be."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker.demo.worker",
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=dict(environ),
            start_new_session=True,  # Ctrl-C is for the demo, which then ends its workers in order
        )
    actor.commands = process.stdin
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(_listen(actor, process, monotonic))
        try:
            yield
        finally:
            await end(process)
            listening.cancel()


async def _listen(actor: Actor, process: asyncio.subprocess.Process, monotonic: Callable[[], float]) -> None:
    assert process.stdout is not None, "it was started with a pipe"
    while line := await process.stdout.readline():
        actor.hear(msgspec.json.decode(line, type=Report), monotonic())
    if actor.state == "working":
        actor.state = "ended"
    actor.heard.set()


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process: close its standard input, then terminate, then kill, with some seconds between."""
    if process.stdin is not None:
        process.stdin.close()
    for insist in (None, process.terminate, process.kill):
        if insist is not None and process.returncode is None:
            insist()
        try:
            async with asyncio.timeout(ENDS_S):
                await process.wait()
                return
        except TimeoutError:
            continue
