"""How soon a change on one replica is with the workers of another.

Two brokers on one PostgreSQL (Debian's, as the tests start it, with its defaults), each in a process of its own. All
workers are connected to the second and hold one token; it is put on the first, again and again. Measured is the time
from just before the request until each worker has the whole frame with the new value, so storing it is included, and so
is reading all frames in the one process that plays the workers. The goal is that of the architecture: 1 s.
"""

from __future__ import annotations

import asyncio
import os
import time
import tomllib
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import aiohttp

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone
from benchmarks.load import NotWelcome, Socket, connect
from benchmarks.process import child, serving
from benchmarks.replica_leases import part

TOKEN = "bench/t0"
GOAL_S = 1.0
ROUNDS = 20
_URL, _INSTANCE = "TOKENBROKER_STORAGE__URL", "TOKENBROKER_SERVER__INSTANCE"
_AT_ONCE = 32
_PATIENCE_S = 30.0


async def hold(url: str, http: aiohttp.ClientSession, workers: int) -> tuple[list[Socket], int]:
    """So many connected workers, each with a lease of the token; and its version."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> tuple[Socket, int]:
        async with places:
            socket = await connect(http, "lease", url, number)
            await socket.send_json({"type": "lease", "id": 1, "token": TOKEN})
            answer = await socket.receive_json()
            if answer["type"] != "granted":
                raise NotWelcome(f"not granted: {answer}")
            return socket, answer["version"]

    held = await asyncio.gather(*(one(number) for number in range(workers)))
    return [socket for socket, _ in held], held[0][1]


async def told(socket: Socket, version: int) -> float:
    """When this worker had that version."""
    while True:
        frame = await socket.receive_json()
        if frame["type"] == "rotated" and frame["version"] == version:
            at = time.perf_counter()
            await socket.send_json({"type": "ack", "lease": frame["lease"], "status": "applied", "version": version})
            return at


async def rounds(first: str, second: str, credential: str, *, workers: int, count: int) -> list[float]:
    """Seconds, for each worker in each round."""
    seen: list[float] = []
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        sockets, version = await hold(second, http, workers)
        for number in range(count):
            waiting = [asyncio.ensure_future(told(socket, version + 1 + number)) for socket in sockets]  # noqa: TID251
            await asyncio.sleep(0)
            began = time.perf_counter()
            body = {"items": [{"token": TOKEN, "value": f"value-{number}"}]}
            headers = {"Authorization": f"Bearer {credential}"}
            async with http.post(f"{first}/v1/tokens", json=body, headers=headers) as answer:
                answer.raise_for_status()
            async with asyncio.timeout(_PATIENCE_S):
                seen += [at - began for at in await asyncio.gather(*waiting)]
    return seen


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """The slowest hundredth, with one worker and with many."""
    many, count = (100, 5) if quick else (1000, ROUNDS)
    found = []
    with part("postgres").serving() as server, ExitStack() as stack:
        database = {_URL: server.url(server.create())}
        os.environ |= database
        try:
            config = asyncio.run(fill(folder / "feed", tokens=10, workers=many))
        finally:
            del os.environ[_URL]
        credential = tomllib.loads((config.parent / "profile.toml").read_text())["credential"]
        first, second = (
            stack.enter_context(child(*serving(config), environ={**database, _INSTANCE: name})).url
            for name in ("first", "second")
        )
        for workers in (1, many):
            seen = sorted(asyncio.run(rounds(first, second, credential, workers=workers, count=count)))
            p50, p99, most = (seen[min(len(seen) - 1, int(len(seen) * part))] for part in (0.5, 0.99, 1.0))
            found.append(
                Figure(
                    name="change to another replica" if workers > 1 else "change to another replica, one worker",
                    question=f"from a change on one replica until 99 of 100 have it, {workers} workers of another",
                    value=p99,
                    unit="s",
                    goal=GOAL_S,
                    detail=f"p50 {p50 * 1000:.1f} ms, most {most * 1000:.1f} ms",
                )
            )
    return found


if __name__ == "__main__":
    alone(figures)
