"""A broker of the demo's own: made by `tokenbroker init` in a temporary folder, served by `tokenbroker serve`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from broker.cli.failures import CommandFailed

STARTS_S: Final = 30.0
ENDS_S: Final = 15.0
_READY: Final = "listening on "


def plain_environment() -> dict[str, str]:
    """The environment without our variables: the demo must not touch another broker."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENBROKER_")}
    return {**kept, "PYTHONSAFEPATH": "1"}


async def initialise(folder: Path) -> None:
    """Run `tokenbroker init`. CommandFailed: with what it said."""
    process = await _tokenbroker("init", "--data-dir", str(folder))
    try:
        async with asyncio.timeout(STARTS_S):
            _, said = await process.communicate()
    finally:
        _kill(process)
    if process.returncode != 0:
        raise CommandFailed(f"init failed: {said.decode(errors='replace')}")


@asynccontextmanager
async def serving(folder: Path, log: Path) -> AsyncIterator[str]:
    """A broker process on a free port; its URL. Stopped in order at the end. CommandFailed: it did not start."""
    with log.open("wb") as errors:
        process = await _tokenbroker(
            "serve", "--data-dir", str(folder), "--listen", "127.0.0.1:0", errors=errors.fileno()
        )
    try:
        yield await _url(process, log)
    finally:
        await _stop(process)


async def _url(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None, "it was started with a pipe"
    try:
        async with asyncio.timeout(STARTS_S):
            line = (await process.stdout.readline()).decode()
    except TimeoutError:
        line = ""
    if not line.startswith(_READY):
        told = (await asyncio.to_thread(log.read_text, errors="replace")).strip().splitlines()
        raise CommandFailed(f"the broker did not start: {told[-1] if told else 'it said nothing'}")
    return line.removeprefix(_READY).strip()


async def _stop(process: asyncio.subprocess.Process) -> None:
    try:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(ENDS_S):
            await process.wait()
    except (TimeoutError, ProcessLookupError):
        pass
    finally:
        _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


async def _tokenbroker(*arguments: str, errors: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker.cli.main",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=plain_environment(),
        start_new_session=True,  # Ctrl-C is for the demo, which then stops the broker in order
    )
