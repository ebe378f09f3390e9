"""What one rotation costs that is pushed to many workers.

All workers are connected to one broker on SQLite, and hold one token. It is put again and again, in turns with a bare
aiohttp server that sends a frame of the same size to as many connections. The time runs from just before the request
that stores the value until the last worker has the whole frame; so storing it is contained, and so is reading all
frames in the one process that plays the workers, on the same cores. Acknowledgements are sent between rounds, and are
counted by themselves. What the broker uses with nothing to do in as long a time, above all for heartbeats, is taken
off.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, ratio
from benchmarks.load import Idle, NotWelcome, Socket, connect
from benchmarks.process import Child, child, serving

_TOKEN = "bench/t0"
_AT_ONCE = 64
_PATIENCE_S = 60.0
_VALUE = "v" * 64
_IDLE_S = 1.0
_SETTLING_S = 0.3
"""How long a server is left alone after a round, so that what it does behind the last frame is counted."""


@dataclass(kw_only=True, slots=True)
class Rounds:
    """One number for each round. cpu_us: of the server, for each worker. grown_bytes: its peak above what it had."""

    seconds: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    ack_us: list[float] = field(default_factory=list)
    bare_us: list[float] = field(default_factory=list)
    grown_bytes: list[int] = field(default_factory=list)


async def _connected(http: aiohttp.ClientSession, kind: str, url: str, workers: int) -> Idle:
    places, idle = asyncio.Semaphore(_AT_ONCE), Idle()

    async def one(number: int) -> None:
        async with places:
            socket = await connect(http, kind, url, number)
            if kind == "lease":
                await socket.send_json({"type": "lease", "id": 1, "token": _TOKEN})
                answer = await socket.receive_json()
                if answer["type"] != "granted":
                    raise NotWelcome(f"not granted: {answer}")
            idle.add(socket)

    await asyncio.gather(*(one(number) for number in range(workers)))
    return idle


async def _pushed(socket: Socket) -> tuple[str, float]:
    """The next frame that is no renewal, and when it was there."""
    while True:
        text = await socket.receive_str()
        if '"type":"renewed"' not in text:
            return text, time.perf_counter()


async def _everybody_told(idle: Idle, http: aiohttp.ClientSession, **post: object) -> tuple[float, list[str]]:
    """Post, and wait until each has a frame: the seconds that took, and the frames."""
    async with idle.used() as sockets, asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_pushed(socket)) for socket in sockets]
        await asyncio.sleep(0)
        began = time.perf_counter()
        async with http.post(**post) as answer:  # type: ignore[arg-type]  # what `post` of aiohttp takes
            answer.raise_for_status()
    got = [task.result() for task in waiting]
    return max(at for _, at in got) - began, [text for text, _ in got]


class Spent:
    """CPU of a server from now on, less the share of time that it uses with nothing to do."""

    def __init__(self, server: Child, idle: float) -> None:
        self._server = server
        self._idle = idle
        self._began = time.perf_counter()
        self._cpu_s = server.cpu_s()

    def us(self, workers: int) -> float:
        """Microseconds for each of so many workers."""
        own_s = self._idle * (time.perf_counter() - self._began)
        return (self._server.cpu_s() - self._cpu_s - own_s) / workers * 1e6


async def _idle_share(server: Child) -> float:
    before = server.cpu_s()
    await asyncio.sleep(_IDLE_S)
    return (server.cpu_s() - before) / _IDLE_S


async def _measure(broker: Child, bare: Child, credential: str, *, workers: int, rounds: int) -> Rounds:
    seen = Rounds()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        holders = await _connected(http, "lease", broker.url, workers)
        bystanders = await _connected(http, "echo", bare.url, workers)
        for number in range(rounds + 1):
            body = {"items": [{"token": _TOKEN, "value": f"{_VALUE}{number:04}"}]}
            headers = {"Authorization": f"Bearer {credential}"}
            broker.reset_peak()
            rss, idle = broker.rss_bytes(), await _idle_share(broker)
            push = Spent(broker, idle)
            took, frames = await _everybody_told(
                holders, http, url=f"{broker.url}/v1/tokens", json=body, headers=headers
            )
            await asyncio.sleep(_SETTLING_S)
            push_us, peak, ack = push.us(workers), broker.peak_bytes(), Spent(broker, idle)
            for socket, frame in zip(holders.sockets, frames, strict=True):
                await socket.send_str(_acknowledgement(frame))
            await asyncio.sleep(2 * _SETTLING_S)
            ack_us, sends = ack.us(workers), Spent(bare, 0.0)
            await _everybody_told(bystanders, http, url=f"{bare.url}/v1/everybody", data=frames[0])
            if number:  # the first one warms up
                seen.seconds.append(took)
                seen.grown_bytes.append(peak - rss)
                seen.cpu_us.append(push_us)
                seen.ack_us.append(ack_us)
                seen.bare_us.append(sends.us(workers))
    return seen


def _acknowledgement(frame: str) -> str:
    lease = frame.partition('"lease":"')[2].partition('"')[0]
    version = frame.partition('"version":')[2].partition(",")[0]
    return f'{{"type":"ack","lease":"{lease}","status":"applied","version":{version}}}'


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """One rotation to all workers: when the last has it, what each costs, and what memory it takes."""
    workers, rounds = (500, 3) if quick else (5000, 7)
    config = asyncio.run(fill(folder / "fan", tokens=10, workers=workers))
    credential = tomllib.loads((config.parent / "profile.toml").read_text())["credential"]
    with child("benchmarks.echo") as bare, child(*serving(config)) as broker:
        seen = uvloop.run(_measure(broker, bare, credential, workers=workers, rounds=rounds))
    return [
        Figure(
            name="fan-out",
            question=f"CPU for each worker of a push to {workers}",
            value=ratio(seen.cpu_us, seen.bare_us),
            unit="bare sends",
            goal=2.0,
            detail=f"push {statistics.median(seen.cpu_us):.1f} us, bare send {statistics.median(seen.bare_us):.1f} us, "
            f"acknowledgement {statistics.median(seen.ack_us):.1f} us",
        ),
        Figure(
            name="fan-out time",
            question=f"from the request of a rotation until the last of {workers} workers has the value",
            value=statistics.median(seen.seconds),
            unit="s",
            goal=1.0,
            detail=f"longest of {rounds} rounds {max(seen.seconds):.2f} s",
        ),
        Figure(
            name="fan-out memory",
            question="memory that such a push takes at its peak",
            value=statistics.median(seen.grown_bytes) / 2**20,
            unit="MiB",
            goal=None,
            detail=f"at most {max(seen.grown_bytes) / 2**20:.1f}, in the last round {seen.grown_bytes[-1] / 2**20:.1f}",
        ),
    ]


if __name__ == "__main__":
    alone(figures)
