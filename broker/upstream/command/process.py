"""Run one program with a document on standard input, and let nothing of it outlive the call. What it says is bounded.

It gets an environment of its own, no descriptor but its three pipes, `/` as its folder, and a process group, which is
killed whole when the call ends. Programs that leave their group on purpose escape that: the operator chose them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

STDOUT_MAX: Final = 256 * 1024
"""Most bytes that are taken of standard output; the largest value takes 88 KiB of it."""
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a program ended. code: its exit code, negative for a signal. stdout: None if it was over the bound.

    stderr_bytes: how much it wrote there. What that was is not kept, because it may quote a secret.
    """

    code: int
    stdout: bytes | None = field(repr=False)
    stderr_bytes: int


async def run_program(program: str, argument: str, *, document: bytes, environment: Mapping[str, str]) -> Ended:
    """Run it to its end. OSError: it cannot be run. Cancelled, it has been killed, with all of its group, on return."""
    process = await _started(program, argument, environment)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_feed(process, document))
            stdout = tasks.create_task(_taken(process))
            stderr = tasks.create_task(_counted(process))
        code = await process.wait()
    finally:
        await _ended(process)
    return Ended(code=code, stdout=stdout.result(), stderr_bytes=stderr.result())


async def _started(program: str, argument: str, environment: Mapping[str, str]) -> Process:
    """Start it, and where that is cancelled, end what was started.

    asyncio, cancelled here, would kill the program alone, and then wait for whatever it has started already.
    """
    starting = asyncio.get_running_loop().create_task(
        asyncio.create_subprocess_exec(
            program,
            argument,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):
            await _ended(await starting)
        raise


async def _ended(process: Process) -> None:
    """See that nothing of it is left."""
    _kill_group(process.pid)
    # asyncio has a process end only when its pipes have, which nobody reads any more, and others may hold open.
    process._transport.close()  # type: ignore[attr-defined]  # there is no public way to close them
    await process.wait()


async def _feed(process: Process, document: bytes) -> None:
    """Write all of it; a program that does not read it has closed its end, and shows why by its exit code."""
    assert process.stdin is not None
    # RuntimeError is uvloop's word for a pipe whose other end was closed before the first write.
    with suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
        process.stdin.write(document)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _taken(process: Process) -> bytes | None:
    """Standard output; None if it is over its bound, and the program has been killed for it."""
    assert process.stdout is not None
    taken: bytearray | None = bytearray()
    while chunk := await process.stdout.read(_CHUNK):
        if taken is not None and len(taken) + len(chunk) <= STDOUT_MAX:
            taken += chunk
        else:
            # Read on to its end, which is near: a pipe that is full of what nobody reads does not end.
            taken = None
            _kill_group(process.pid)
    return None if taken is None else bytes(taken)


async def _counted(process: Process) -> int:
    assert process.stderr is not None
    count = 0
    while chunk := await process.stderr.read(_CHUNK):
        count += len(chunk)
    return count


def _kill_group(group: int) -> None:
    # PermissionError: all that is left of it runs as somebody else, as programs do that were started by sudo.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
