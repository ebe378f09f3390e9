"""The load: connections that keep a number of requests in flight, run as a process of its own beside the measured one.

`python -m benchmarks.load lease|echo URL --connections N --in-flight N --requests N --tokens N` connects, waits for a
line on standard input, sends, prints the seconds it took and those of the slowest hundredth of the answers, and exits
1 at the first answer that is not a grant.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import time
from collections import deque

import aiohttp
import uvloop

from benchmarks.cluster import worker_key
from tokenbroker_client.transcript import session_transcript
from tokenbroker_client.wire import SUBPROTOCOL, b64, unb64

Socket = aiohttp.ClientWebSocketResponse


async def connect(http: aiohttp.ClientSession, kind: str, url: str, number: int) -> Socket:
    """A connection of worker `wNUMBER`, or a bare one."""
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
        raise SystemExit(f"not welcomed: {welcome}")
    return socket


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
            raise SystemExit(f"refused: {answer}")
        taken.append(time.perf_counter() - sent_at.popleft())
        if sent < requests:
            sent_at.append(time.perf_counter())
            await socket.send_str(frame(sent))
            sent += 1
    return taken


async def everywhere(sockets: list[Socket], chosen: argparse.Namespace) -> list[float]:
    """Drive all connections at once; the seconds until each answer."""
    step = max(chosen.tokens // chosen.connections, 1)
    async with asyncio.TaskGroup() as tasks:
        driven = [
            tasks.create_task(
                drive(
                    socket,
                    first=chosen.offset + number * step,
                    requests=chosen.requests,
                    in_flight=chosen.in_flight,
                    tokens=chosen.tokens,
                )
            )
            for number, socket in enumerate(sockets)
        ]
    return [seconds for each in driven for seconds in each.result()]


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
    chosen = parser.parse_args()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        sockets: list[Socket] = []
        for number in range(chosen.connections):
            kind = "echo" if chosen.kind == "echo" else "lease"
            sockets.append(await connect(http, kind, chosen.url, number % chosen.workers))
        print("connected", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            started = time.perf_counter()
            taken = [0.0] if chosen.kind == "idle" else await everywhere(sockets, chosen)
            worst = sorted(taken)[int(len(taken) * 0.99)]
            print(f"{time.perf_counter() - started:.6f} {worst:.6f}", flush=True)
        for socket in sockets:
            await socket.close()


if __name__ == "__main__":
    uvloop.run(main())
