"""A TCP proxy that can be cut, frozen and pointed elsewhere: the network between two parts, when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 65536


class TcpProxy:
    """Passes bytes between those who connect to `port` and `target`.

    refuses: connections are closed as soon as they are made. thawed: cleared, bytes are taken from nobody, as on a
    network that drops packets.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.refuses = False
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._pipes: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Break what is connected, and let nobody in."""
        self.refuses = True
        self.drop()

    def drop(self) -> None:
        """Break what is connected; whoever comes again is let in."""
        for pipe in list(self._pipes):
            pipe.cancel()

    def mend(self) -> None:
        """Let everybody in, and everything through."""
        self.refuses = False
        self.thawed.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        there: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if not self.refuses:
                from_there, there = await asyncio.open_connection(*self.target)
                async with asyncio.TaskGroup() as tasks:
                    ways = [
                        tasks.create_task(self._pipe(reader, there)),
                        tasks.create_task(self._pipe(from_there, writer)),
                    ]
                    # Whichever side ends first ends both.
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                    for way in ways:
                        way.cancel()
        self._pipes.discard(task)
        for each in (writer, there):
            if each is not None and each.transport is not None:
                each.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self.thawed.wait()
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def proxying(host: str, port: int) -> AsyncIterator[TcpProxy]:
    """A proxy on a free port of this machine, before that address."""
    proxy = TcpProxy((host, port))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.mend()
        proxy.drop()
