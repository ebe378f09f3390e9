"""What it costs a broker that everybody comes back at once.

Workers are connected to one broker on SQLite, each with a lease. It is killed and started again; every worker connects,
proves itself and resumes its lease. In turns with as many bare WebSockets that connect to an aiohttp server just
started, and have one frame echoed. One process plays all workers, a number of handshakes at a time, on the cores that
the servers have too. How long everybody takes where a database and two replicas are killed is `restart_storm`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, ratio
from benchmarks.load import Idle, Socket, ask, connect
from benchmarks.process import Child, child, serving

_TOKENS: Final = 1_000
_AT_ONCE: Final = 64
_LIMIT_S: Final = 120.0


@dataclass(kw_only=True, slots=True)
class _Rounds:
    """One number for each round. cpu_us, bare_us: of the server, for each worker. seconds: from the kill on."""

    cpu_us: list[float] = field(default_factory=list)
    bare_us: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """What each worker costs that comes back, and when the last one is."""
    workers, rounds = (200, 3) if quick else (5000, 5)
    config = asyncio.run(fill(folder / "resume", tokens=_TOKENS, workers=workers))
    seen = uvloop.run(_measure(config, workers=workers, rounds=rounds))
    return [
        Figure(
            name="resume",
            question=f"CPU for each of {workers} workers that connect and resume a lease, all at once",
            value=ratio(seen.cpu_us, seen.bare_us),
            unit="bare connections",
            goal=None,
            detail=f"worker {statistics.median(seen.cpu_us):.0f} us, bare connection and echo "
            f"{statistics.median(seen.bare_us):.0f} us, {_AT_ONCE} handshakes at a time",
        ),
        Figure(
            name="resume time",
            question=f"from the kill of a broker until the last of {workers} workers has its lease again",
            value=statistics.median(seen.seconds),
            unit="s",
            goal=None,
            detail=f"longest of {rounds} rounds {max(seen.seconds):.1f} s; broker, and all workers in one process, on "
            f"{os.cpu_count()} cores",
        ),
    ]


async def _measure(config: Path, *, workers: int, rounds: int) -> _Rounds:
    seen = _Rounds()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        held: dict[int, Mapping[str, Any]] = {}

        async def lease(url: str, number: int) -> Socket:
            socket = await connect(http, "lease", url, number)
            asked = {"type": "lease", "token": f"bench/t{number % _TOKENS}"}
            answer = await ask(socket, asked)
            held[number] = {"lease": answer["lease"], "version": answer["version"]}
            return socket

        async def resume(url: str, number: int) -> Socket:
            socket = await connect(http, "lease", url, number)
            answer = await ask(socket, {"type": "resume", "leases": [held[number]]})
            if answer["type"] != "resumed" or answer["gone"]:
                raise RuntimeError(f"not resumed: {answer}")
            return socket

        async def echo(url: str, number: int) -> Socket:
            socket = await connect(http, "echo", url, number)
            await ask(socket, {"type": "resume", "leases": [held[number]]})
            return socket

        with child(*serving(config)) as broker:
            await _everybody(lease, broker, workers)
        for _ in range(rounds):
            began = time.perf_counter()
            with child(*serving(config)) as broker:
                cpu_us, ended = await _everybody(resume, broker, workers)
            seen.cpu_us.append(cpu_us)
            seen.seconds.append(ended - began)
            with child("benchmarks.echo") as bare:
                cpu_us, _ = await _everybody(echo, bare, workers)
            seen.bare_us.append(cpu_us)
    return seen


async def _everybody(come: Callable[[str, int], Awaitable[Socket]], server: Child, workers: int) -> tuple[float, float]:
    """CPU of the server for each worker, and when the last one was there. The server is killed then."""
    places, idle = asyncio.Semaphore(_AT_ONCE), Idle()
    before = server.cpu_s()

    async def one(number: int) -> None:
        async with places:
            idle.add(await come(server.url, number))

    async with asyncio.timeout(_LIMIT_S):
        await asyncio.gather(*(one(number) for number in range(workers)))
    ended = time.perf_counter()
    cpu_us = (server.cpu_s() - before) / workers * 1e6
    os.kill(server.pid, signal.SIGKILL)
    await idle.close()
    return cpu_us, ended


if __name__ == "__main__":
    alone(figures)
