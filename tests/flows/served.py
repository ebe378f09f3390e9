"""A broker in a process of its own, as operators run it: started by `tokenbroker serve`, ended as roughly as wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

SERVE = "from broker.cli.main import main; main()"
START_S = 30.0


class Process:
    """A serving process, and all that it has written."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self.output = output
        self.url = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def kill(self) -> None:
        """kill -9."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def serving(
    config: Path, output: Path, prepare: Callable[[], None] | None = None, **environ: str
) -> AsyncIterator[Process]:
    """Serve `config` on a free port until the body ends; output gathers standard output and error.

    prepare: runs in the new process before the broker does.
    """
    settings = {f"TOKENBROKER_{name.upper()}": value for name, value in environ.items()}
    with output.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", SERVE, "serve", "--config", str(config), "--listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, **settings},
            preexec_fn=prepare,
        )
    served = Process(process, output)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on "), output.read_text()
        with output.open("a") as log_text:
            log_text.write(line)
        served.url = line.removeprefix("listening on ").strip()
        yield served
    finally:
        await served.kill()
        rest = await process.stdout.read()
        with output.open("ab") as log:
            log.write(rest)
