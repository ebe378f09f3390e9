"""A connection with its own thread, which runs whole functions. What the functions do is not known here."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Concatenate, ParamSpec, Self, TypeVar

import aiosqlite

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedConnection(aiosqlite.Connection):
    """An aiosqlite connection that also runs a function with the raw connection, in one visit to its thread.

    aiosqlite's public methods cost a hop to the thread and back per statement. A group of commits is some six
    statements, and the event loop would be woken six times for what one visit does. So `submit` queues work exactly as
    `aiosqlite.Connection._execute` does, but hands out the future instead of waiting for it: the caller needs no task
    of its own while the thread works. A test runs against the aiosqlite that is installed.
    """

    def __init__(self, opener: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(self._open, iter_chunk_size=64)
        self._opener = opener
        self._opened: sqlite3.Connection | None = None
        self._stopped: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Open. Whatever the opener raises comes through; failed or cancelled, no thread and no connection is left."""
        try:
            await super().__aenter__()
        except BaseException:
            # aiosqlite asks its thread to stop, but does not wait for it; the loop might be gone before the thread is.
            if self._stopped is not None:
                await self._stopped
            raise
        return self

    def stop(self) -> asyncio.Future[None] | None:
        """Ask the thread to close and end. aiosqlite forgets a connection that was opened for a cancelled caller."""
        self._tx.put_nowait((None, self._close_opened))
        self._stopped = super().stop()
        return self._stopped

    def submit(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Queue `function(connection, ...)` behind what was queued before; it runs even if the future is cancelled.

        ValueError: the connection is closed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(function, self._conn, *args, **kwargs)))
        return future

    def _open(self) -> sqlite3.Connection:
        self._opened = self._opener()
        return self._opened

    def _close_opened(self) -> None:
        if self._opened is not None:
            self._opened.close()
