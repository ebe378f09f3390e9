"""CPU of the client library for a lease, against that of a bare aiohttp client for an echo.

Both clients run in this process, in turns, with as many in flight; broker and echo are others. A lease is asked for,
used and released, which takes two requests.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import uvloop

import tokenbroker_client
from benchmarks.cluster import fill, worker_key
from benchmarks.figures import Figure, alone, ratio
from benchmarks.load import drive
from benchmarks.process import await_heads, child, serving
from tokenbroker_client import WorkerKey

_TOKENS = 400
_IN_FLIGHT = 8


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """One figure."""
    config = asyncio.run(fill(folder / "client", tokens=_TOKENS, workers=1))
    with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
        await_heads(broker, _TOKENS)
        leases, echoes = uvloop.run(_measure(broker.url, echo.url, rounds=3 if quick else 7))
    return [
        Figure(
            name="client lease",
            question="CPU of the client for a lease and its release",
            value=ratio(leases, echoes),
            unit="bare echoes",
            goal=None,
            detail=f"client {statistics.median(leases):.1f} us, bare client {statistics.median(echoes):.1f} us, "
            f"{_IN_FLIGHT} in flight",
        )
    ]


async def _measure(broker_url: str, echo_url: str, *, rounds: int) -> tuple[list[float], list[float]]:
    leases, echoes = [], []
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{echo_url}/v1/connect", compress=0) as socket,
        tokenbroker_client.connect(broker_url, worker="w0", key=WorkerKey(worker_key(0))) as broker,
    ):

        async def leased(number: int) -> None:
            async with broker.lease(f"bench/t{number}") as lease:
                assert lease.value

        async def all_leased() -> None:
            numbers = iter(range(_TOKENS))

            async def one_after_another() -> None:
                for number in numbers:
                    await leased(number)

            await asyncio.gather(*(one_after_another() for _ in range(_IN_FLIGHT)))

        async def all_echoed() -> None:
            await drive(socket, first=0, requests=_TOKENS, in_flight=_IN_FLIGHT, tokens=_TOKENS)

        for _ in range(rounds + 1):
            leases.append(await _each_us(all_leased))
            echoes.append(await _each_us(all_echoed))
    return leases[1:], echoes[1:]  # the first ones warm up


async def _each_us(all_of_them: Callable[[], Awaitable[None]]) -> float:
    started = time.process_time()
    await all_of_them()
    return (time.process_time() - started) / _TOKENS * 1e6


if __name__ == "__main__":
    alone(figures)
