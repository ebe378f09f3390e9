"""The load, run as a process of its own beside the measured one: connections that keep a number of requests in flight,
or that send at a steady rate, whatever the answers do.

`python -m benchmarks.load lease|echo URL --connections N --in-flight N --requests N --tokens N` connects, waits for a
line on standard input, sends, prints the seconds it took and those within which half, 99 of 100 and 999 of 1000 answers
came, and exits 1 at the first answer that is not a grant. With `--rate N`, so many requests a second go out on all
connections together, and the seconds count from when each was due.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvloop

from benchmarks.cluster import worker_key
from tokenbroker_client.transcript import session_transcript
from tokenbroker_client.wire import SUBPROTOCOL, b64, unb64

Socket = aiohttp.ClientWebSocketResponse
_AT_ONCE = 16


class NotWelcome(Exception):
    """The broker's answer to a handshake, or to a request, is not what was asked for."""


async def connect(http: aiohttp.ClientSession, kind: str, url: str, number: int) -> Socket:
    """A connection of worker `wNUMBER`, or a bare one. NotWelcome: the broker refuses it."""
    protocols = (SUBPROTOCOL,) if kind != "echo" else ()
    socket = await http.ws_connect(f"{url}/v1/connect", protocols=protocols, compress=0, max_msg_size=0, ssl=False)
    if kind == "echo":
        return socket
    key, nonce = worker_key(number), os.urandom(32)
    tls = socket.get_extra_info("ssl_object")
    public_key = key.public_key().public_bytes_raw()
    hello = {"type": "hello", "worker": f"w{number}", "auth": "ed25519"}
    await socket.send_json({**hello, "nonce": b64(nonce), "public_key": b64(public_key)})
    challenge = await socket.receive_json()
    signed = session_transcript(
        cluster_id=challenge["cluster"],
        worker=f"w{number}",
        public_key=public_key,
        client_nonce=nonce,
        broker_nonce=unb64(challenge["nonce"]),
        channel_binding=b"" if tls is None else hashlib.sha256(tls.getpeercert(binary_form=True)).digest(),
    )
    await socket.send_json({"type": "prove", "signature": b64(key.sign(signed))})
    welcome = await socket.receive_json()
    if welcome["type"] != "welcome":
        raise NotWelcome(f"not welcomed: {welcome}")
    return socket


async def ask(socket: Socket, frame: dict[str, Any]) -> dict[str, Any]:
    """The answer to this request, the only one in flight, past anything else."""
    await socket.send_json({**frame, "id": 1})
    while True:
        answer: dict[str, Any] = await socket.receive_json()
        if answer.get("id") == 1:
            return answer


async def drive(socket: Socket, *, first: int, requests: int, in_flight: int, tokens: int) -> list[float]:
    """Send `requests` requests for tokens from number `first` on, `in_flight` of them unanswered at a time.

    The seconds until each answer, if answers come in the order of requests.
    """

    def frame(number: int) -> str:
        return f'{{"type":"lease","id":{number},"token":"bench/t{(first + number) % tokens}"}}'

    sent = min(in_flight, requests)
    sent_at, taken = deque[float](), []
    for number in range(sent):
        sent_at.append(time.perf_counter())
        await socket.send_str(frame(number))
    for _ in range(requests):
        answer = await socket.receive()
        if answer.type is not aiohttp.WSMsgType.TEXT or '"type":"error"' in answer.data:
            raise NotWelcome(f"refused: {answer}")
        taken.append(time.perf_counter() - sent_at.popleft())
        if sent < requests:
            sent_at.append(time.perf_counter())
            await socket.send_str(frame(sent))
            sent += 1
    return taken


async def pace(socket: Socket, *, first: int, requests: int, interval_s: float, tokens: int) -> list[float]:
    """Send `requests` requests, one each `interval_s`; the seconds from when each was due until its answer."""
    began = time.perf_counter() + secrets.randbelow(1000) / 1000 * interval_s
    taken = []

    async def send() -> None:
        for number in range(requests):
            await asyncio.sleep(max(0.0, began + number * interval_s - time.perf_counter()))
            await socket.send_str(f'{{"type":"lease","id":{number},"token":"bench/t{(first + number) % tokens}"}}')

    async def receive() -> None:
        for _ in range(requests):
            answer = await socket.receive_str()
            if '"type":"error"' in answer:
                raise NotWelcome(f"refused: {answer}")
            number = int(answer.partition('"id":')[2].partition(",")[0])
            taken.append(time.perf_counter() - began - number * interval_s)

    await asyncio.gather(send(), receive())
    return taken


async def everywhere(sockets: list[Socket], chosen: argparse.Namespace) -> list[float]:
    """Drive all connections at once; the seconds until each answer."""
    step = max(chosen.tokens // chosen.connections, 1)
    firsts = [chosen.offset + number * step for number in range(len(sockets))]
    fixed = {"requests": chosen.requests, "tokens": chosen.tokens}
    async with asyncio.TaskGroup() as tasks:
        driven = [
            tasks.create_task(
                pace(socket, first=first, interval_s=chosen.connections / chosen.rate, **fixed)
                if chosen.rate
                else drive(socket, first=first, in_flight=chosen.in_flight, **fixed)
            )
            for socket, first in zip(sockets, firsts, strict=True)
        ]
    return [seconds for each in driven for seconds in each.result()]


class Idle:
    """Connections that do nothing but answer heartbeats, which aiohttp does while something is awaited of them.

    What else they are sent meanwhile, as renewals, is read and forgotten.
    """

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self._waiting: list[asyncio.Task[None]] = []

    def add(self, socket: Socket) -> None:
        """Hold one more."""
        self.sockets.append(socket)
        self._wait(socket)

    @asynccontextmanager
    async def used(self) -> AsyncIterator[list[Socket]]:
        """Leave them to the caller. RuntimeError: one of them ended meanwhile."""
        for task in self._waiting:
            if task.done():
                raise RuntimeError("a connection ended by itself")
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        self._waiting.clear()
        yield self.sockets
        for socket in self.sockets:
            self._wait(socket)

    async def close(self) -> None:
        """End them all."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await asyncio.gather(*(socket.close() for socket in self.sockets))

    def _wait(self, socket: Socket) -> None:
        self._waiting.append(asyncio.ensure_future(_read_on(socket)))  # noqa: TID251 - they end with the process


async def _read_on(socket: Socket) -> None:
    while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
        pass


async def connected(http: aiohttp.ClientSession, chosen: argparse.Namespace) -> Idle:
    """All connections, some at once."""
    places, idle = asyncio.Semaphore(_AT_ONCE), Idle()
    kind = "echo" if chosen.kind == "echo" else "lease"

    async def one(number: int) -> None:
        async with places:
            idle.add(await connect(http, kind, chosen.url, number % chosen.workers))

    await asyncio.gather(*(one(number) for number in range(chosen.connections)))
    return idle


async def main() -> None:
    """Connect, wait for the word, send."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("lease", "echo", "idle"))
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1000, help="of each connection")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0)
    chosen = parser.parse_args()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        idle = await connected(http, chosen)
        print("connected", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            started = time.perf_counter()
            async with idle.used() as sockets:
                taken = [0.0] if chosen.kind == "idle" else await everywhere(sockets, chosen)
            seconds, taken = time.perf_counter() - started, sorted(taken)
            within = (taken[int(len(taken) * share)] for share in (0.5, 0.99, 0.999))
            print(f"{seconds:.6f}", *(f"{each:.6f}" for each in within), flush=True)
        await idle.close()


if __name__ == "__main__":
    uvloop.run(main())
