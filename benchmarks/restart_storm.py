"""How soon everybody is served after everything was killed.

Workers are connected to two replicas on one PostgreSQL, each with a lease. Database and replicas are killed at once and
started again; every worker tries both in turn, paced by the client's back-off, and resumes its lease. One process plays
all of them, on the cores that brokers and database have too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone
from benchmarks.load import NotWelcome, ask, connect
from benchmarks.process import Child, child, serving
from benchmarks.replica_leases import part
from tokenbroker_client import Backoff

GOAL_S = 60.0
_TOKENS = 1000
_PATIENCE_S = 15.0
_GIVE_UP_S = 600.0
_AT_ONCE = 64
_URL, _INSTANCE = "TOKENBROKER_STORAGE__URL", "TOKENBROKER_SERVER__INSTANCE"
_SHARED = "TOKENBROKER_SERVER__SHARED_ADDRESSES"
"""All workers come from one address, whose failed handshakes would otherwise keep everybody out."""
_BROKEN = (aiohttp.ClientError, OSError, TimeoutError, TypeError, NotWelcome)
"""No connection, no welcome, or an answer that is none."""


class Storm:
    """All the workers. urls: where they try. back: seconds from `since` on until each had its lease again."""

    def __init__(self, http: aiohttp.ClientSession, urls: list[str], pause_max_s: float) -> None:
        self.urls = urls
        self.since = 0.0
        self.back: dict[int, float] = {}
        self.lost = 0
        self._http = http
        self._first = asyncio.Semaphore(_AT_ONCE)
        self._backoff = Backoff(most_s=pause_max_s)

    async def hold(self, number: int, connected: asyncio.Event) -> None:
        """Lease a token as worker `wNUMBER`, and come back once after the connection has gone."""
        async with self._first:
            socket = await connect(self._http, "lease", self.urls[number % 2], number)
            asked = {"type": "lease", "token": f"bench/t{number % _TOKENS}"}
            answer = await ask(socket, asked)
            connected.set()
        while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        failures = 0
        while not await self._resume(number, failures, {"lease": answer["lease"], "version": answer["version"]}):
            await asyncio.sleep(self._backoff.pause_s(failures))
            failures += 1
        self.back[number] = time.perf_counter() - self.since

    async def _resume(self, number: int, failures: int, stated: dict[str, Any]) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                socket = await connect(self._http, "lease", self.urls[(number + failures) % 2], number)
                answer = await ask(socket, {"type": "resume", "leases": [stated]})
        except _BROKEN:
            return False
        if answer["type"] == "error":
            await socket.close()
            return False
        self.lost += len(answer["gone"])
        return True


async def storm(server: Any, config: Path, workers: int, pause_max_s: float) -> tuple[float, list[float], int]:
    """Seconds until both replicas listened; those until each worker was back, in order; how many leases were lost."""
    with ExitStack() as stack:
        brokers = [_start(stack, config, name) for name in ("first", "second")]
        async with (
            asyncio.timeout(_GIVE_UP_S),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
            asyncio.TaskGroup() as tasks,
        ):
            storming = Storm(http, [broker.url for broker in brokers], pause_max_s)
            ready = [asyncio.Event() for _ in range(workers)]
            for number, connected in enumerate(ready):
                tasks.create_task(storming.hold(number, connected))
            for connected in ready:
                await connected.wait()
            server.stop()
            for broker in brokers:
                os.kill(broker.pid, signal.SIGKILL)
            storming.since = time.perf_counter()
            await asyncio.to_thread(server.start)
            again = [asyncio.to_thread(_start, stack, config, name) for name in ("first", "second")]
            storming.urls[:] = [broker.url for broker in await asyncio.gather(*again)]
            listening_s = time.perf_counter() - storming.since
        return listening_s, sorted(storming.back.values()), storming.lost


def _start(stack: ExitStack, config: Path, name: str) -> Child:
    return stack.enter_context(child(*serving(config), environ={_INSTANCE: name, _SHARED: "true"}))


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """From the restart of everything until the last worker holds its lease again."""
    workers, pause_max_s = (100, 2.0) if quick else (5000, 30.0)  # the longest back-off of the client: 30 s
    with part("postgres").serving() as server:
        os.environ[_URL] = server.url(server.create())
        try:
            config = asyncio.run(fill(folder / "storm", tokens=_TOKENS, workers=workers))
            listening_s, back, lost = uvloop.run(storm(server, config, workers, pause_max_s))
        finally:
            del os.environ[_URL]
    half, most = back[len(back) // 2], back[int(len(back) * 0.99)]
    return [
        Figure(
            name="restart storm",
            question=f"restart of database and two replicas under {workers} workers, until all have their leases",
            value=back[-1],
            unit="s",
            goal=GOAL_S,
            detail=f"listening {listening_s:.1f} s, half {half:.1f} s, 99 of 100 {most:.1f} s; {lost} leases lost",
        )
    ]


if __name__ == "__main__":
    alone(figures)
