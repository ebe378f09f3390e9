"""A worker that does not read what it is sent: it is cut off, costs bounded memory, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from typing import Any

import pytest
import uvloop

LIMITS = {"backlog_bytes": 64 * 1024, "backlog_s": 0.5, "backlog_bytes_max": 4 * 1024 * 1024}


class Deaf:
    """A proved worker on a bare socket with a small window, that sends and never reads again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, **frame: Any) -> None:
        data = json.dumps(frame).encode()
        mask = os.urandom(4)
        length = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.writer.write(b"\x81" + length + mask + masked)

    async def receive(self) -> Any:
        head = await self.reader.readexactly(2)
        length = head[1]
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        return json.loads(await self.reader.readexactly(length))


async def go_deaf(house: Any, wire: Any) -> Deaf:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", int(house.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=raw, limit=2048)
    writer.write(
        b"GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Protocol: tokenbroker.v1\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    deaf, who, nonce = Deaf(reader, writer), house.workers["ci-1"], os.urandom(32)
    deaf.send(type="hello", worker=who.name, auth="ed25519", nonce=wire.b64(nonce), public_key=wire.b64(who.public_key))
    challenge = await deaf.receive()
    broker_nonce = wire.unb64(challenge["nonce"])
    signed = wire.transcript(challenge["cluster"], who.name, who.public_key, nonce, broker_nonce, b"")
    deaf.send(type="prove", signature=wire.b64(who.key.sign(signed)))
    assert (await deaf.receive())["type"] == "welcome"
    return deaf


async def one_that_asks_and_does_not_read(open_house: Any, prepare: Any, wire: Any, welcomed: Any) -> None:
    async with open_house(session=LIMITS) as house:
        await prepare(house)
        await prepare(house, worker="ci-2")
        await house.put("github/big", b"x" * 60_000)
        deaf = await go_deaf(house, wire)
        async with welcomed(house, "ci-2") as other:
            started, slowest, asked = time.monotonic(), 0.0, 0
            while len(house.broker.sessions) > 1:
                assert time.monotonic() - started < 5
                for _ in range(20):
                    asked += 1
                    if not deaf.writer.is_closing():
                        deaf.send(type="lease", id=asked, token="github/big")
                before = time.monotonic()
                await other.lease("github/ci")
                slowest = max(slowest, time.monotonic() - before)
                backlog = max(s._transport.get_write_buffer_size() for s in house.broker.sessions)
                assert backlog < 40 * 1024 * 1024
                await asyncio.sleep(0.01)
            assert slowest < 0.5
            assert len(house.broker.context.holdings) == 1
        deaf.writer.transport.abort()


async def one_that_is_pushed_to_and_does_not_read(open_house: Any, prepare: Any, wire: Any, welcomed: Any) -> None:
    async with open_house(session=LIMITS) as house:
        await prepare(house)
        await prepare(house, worker="ci-2")
        await house.put("github/big", b"0" * 60_000)
        deaf = await go_deaf(house, wire)
        deaf.send(type="lease", id=1, token="github/big")
        async with welcomed(house, "ci-2") as other:
            await other.lease("github/big")
            number = 0
            while len(house.broker.sessions) > 1:
                number += 1
                assert number < 400
                await house.put("github/big", f"{number:060000}".encode())
                async with asyncio.timeout(1):
                    while (await other.push())["version"] <= number:
                        pass
        deaf.writer.transport.abort()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


SCENES = [one_that_asks_and_does_not_read, one_that_is_pushed_to_and_does_not_read]


@pytest.fixture(params=[(scene, loop) for scene in SCENES for loop in LOOPS], ids=lambda each: each[1])
def scene_and_loop(request: pytest.FixtureRequest) -> Any:
    """Each scene on each event loop: their transports buffer differently."""
    return request.param


def test_a_worker_that_does_not_read_is_cut_off(
    open_house: Any, prepare: Any, wire: Any, welcomed: Any, scene_and_loop: Any
) -> None:
    """Its connection ends in the time it is given, and another worker's requests and pushes are as quick as ever."""
    scene, loop = scene_and_loop
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scene(open_house, prepare, wire, welcomed))


async def test_what_it_asks_for_without_reading_is_refused(open_house: Any, prepare: Any, wire: Any) -> None:
    """Requests on their way when it stops reading are refused from a bound on, so that they do not fill the memory;
    once it reads again, it is granted what it asks for."""
    bounds = {"backlog_bytes": 64 * 1024, "backlog_granted_bytes": 256 * 1024, "backlog_s": 30.0}
    async with open_house(session=bounds) as house:
        await prepare(house)
        await house.put("github/big", b"x" * 60_000)
        deaf = await go_deaf(house, wire)
        (session,) = house.broker.sessions
        for number in range(1, 201):
            deaf.send(type="lease", id=number, token="github/big")
        await house.until(lambda: house.broker.desk.counts.failed.get("rate_limited", 0) > 0)
        await house.broker.desk.drained()
        assert session._transport.get_write_buffer_size() < 1024 * 1024
        refused = granted = 0
        async with asyncio.timeout(20):
            while refused + granted < 200:
                kind = (await deaf.receive())["type"]
                refused, granted = refused + (kind == "error"), granted + (kind == "granted")
        assert refused
        deaf.send(type="lease", id=900, token="github/big")
        assert (await deaf.receive())["type"] == "granted"
        deaf.writer.close()
