"""Pings of workers: answered like any frame, in their turn; a flood of them before the proof ends the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from broker.audit.entries import SessionRefused

PING = b"\x89\x82\0\0\0\0hi"
LONG_PING = b"\x89\xfd\0\0\0\0" + bytes(125)


@pytest.fixture
def by_hand(wire: Any) -> Any:
    """Connects without anything that answers or hides control frames."""

    @asynccontextmanager
    async def connect(house: Any) -> AsyncIterator[Any]:
        async with aiohttp.ClientSession() as http:
            socket = await http.ws_connect(
                f"{house.url}/v1/connect", protocols=["tokenbroker.v1"], autoping=False, max_msg_size=0
            )
            yield wire.Wire(socket, b"")
            await socket.close()

    return connect


def flood(connection: Any, pings: int) -> None:
    connection.socket._response.connection.transport.write(PING * pings)


async def pongs(connection: Any, count: int) -> list[bytes]:
    """The payloads of the next frames, which are pongs."""
    async with asyncio.timeout(5):
        messages = [await connection.socket.receive() for _ in range(count)]
    assert {message.type for message in messages} == {aiohttp.WSMsgType.PONG}
    return [message.data for message in messages]


async def test_a_ping_is_answered_with_what_it_says(house: Any, by_hand: Any) -> None:
    """Before the proof and after it, as often as it is sent; a pong that nobody asked for is no fault."""
    async with by_hand(house) as worker:
        flood(worker, 3)
        assert await pongs(worker, 3) == [b"hi"] * 3
        assert (await worker.handshake(house.workers["ci-1"]))["type"] == "welcome"
        flood(worker, 500)
        assert await pongs(worker, 500) == [b"hi"] * 500
        await worker.socket.pong(b"unasked")
        assert (await worker.lease("github/ci"))["value"] == "s3cret"


async def test_a_flood_before_the_proof_ends_the_connection(house: Any, by_hand: Any) -> None:
    """Nobody needs so many pings within a handshake; it is cut off at once, and counted as a failure."""
    async with by_hand(house) as stranger:
        flood(stranger, 5000)
        async with asyncio.timeout(3):
            while (await stranger.socket.receive()).type is aiohttp.WSMsgType.PONG:
                pass
    await house.until(lambda: house.broker.door._unproved == 0, within_s=1)
    (entry,) = await house.entries_within(SessionRefused, 1)
    assert entry.reason == "malformed"


async def test_a_worker_that_pings_and_does_not_read_is_cut_off(open_house: Any, prepare: Any, by_hand: Any) -> None:
    """Pongs count as unread like answers: from a bound on no ping is read or answered, and then its time is over."""
    async with open_house(session={"backlog_s": 0.2}) as house:
        await prepare(house)
        async with by_hand(house) as worker:
            await worker.handshake(house.workers["ci-1"])
            (session,) = house.broker.sessions
            transport = worker.socket._response.connection.transport
            transport.pause_reading()
            most = 0
            async with asyncio.timeout(20):
                while len(house.broker.sessions):
                    if transport.get_write_buffer_size() < 2**20:
                        transport.write(LONG_PING * 1000)
                    most = max(most, session._transport.get_write_buffer_size())
                    await asyncio.sleep(0.002)
            assert 256 * 1024 < most < 512 * 1024
            transport.abort()
