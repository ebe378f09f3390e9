"""Connections that ask nothing are not kept for ever, and do not keep others out; those that work are left alone."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from broker import serving
from broker.idle import IdleConnections

HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the bounds of the brokers that are opened from here on."""

    def bounds(**given: Any) -> None:
        monkeypatch.setattr(serving, "IdleConnections", lambda: IdleConnections(sweep_s=0.1, **given))

    return bounds


class Raw:
    """A TCP connection without any client on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def closed(self, within_s: float = 2.0) -> bool:
        """Whether the broker closes it in time; what it sends before is read."""
        try:
            async with asyncio.timeout(within_s):
                while await self.reader.read(4096):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True


async def connect(house: Any, stack: AsyncExitStack, data: bytes = b"") -> Raw:
    where = urlsplit(house.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    stack.callback(writer.close)
    writer.write(data)
    return Raw(reader, writer)


@pytest.mark.parametrize("data", [b"", HALF, WHOLE], ids=["nothing", "half a request", "after an answer"])
async def test_a_connection_that_asks_nothing_is_closed(open_house: Any, impatient: Any, data: bytes) -> None:
    """Silence, half a request, or silence after an answer: the connection ends when its time is over."""
    impatient(idle_s=0.5)
    async with open_house() as house, AsyncExitStack() as stack:
        raw = await connect(house, stack, data)
        assert not await raw.closed(within_s=0.3)
        assert await raw.closed()


async def test_a_trickle_of_bytes_does_not_prolong_it(open_house: Any, impatient: Any) -> None:
    """A header that never ends counts as nothing asked."""
    impatient(idle_s=0.5)
    async with open_house() as house, AsyncExitStack() as stack:
        raw = await connect(house, stack, HALF)

        async def trickle() -> None:
            while True:
                raw.writer.write(b"a")
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as tasks:
            trickling = tasks.create_task(trickle())
            assert await raw.closed()
            trickling.cancel()


async def test_a_worker_that_says_nothing_stays(open_house: Any, impatient: Any, prepare: Any, welcomed: Any) -> None:
    """A session is work, however quiet it is."""
    impatient(idle_s=0.3, idle_max=1)
    async with open_house() as house:
        await prepare(house)
        async with welcomed(house) as worker:
            assert await worker.silent(1.0)
            await worker.lease("github/ci")


async def test_too_many_idle_connections_make_room_for_others(open_house: Any, impatient: Any) -> None:
    """Beyond the bound the oldest are closed; a newcomer is served, and may ask again."""
    impatient(idle_max=3)
    async with open_house() as house, AsyncExitStack() as stack:
        raws = [await connect(house, stack) for _ in range(6)]
        assert [await raw.closed(within_s=0.5) for raw in raws] == [True] * 3 + [False] * 3
        async with aiohttp.ClientSession() as http:
            for _ in range(2):
                async with http.get(f"{house.url}/healthz") as response:
                    assert response.status == 200
