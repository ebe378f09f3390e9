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
        super().__init__(opener, iter_chunk_size=64)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    def submit(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Queue `function(connection, ...)` behind what was queued before; it runs even if the future is cancelled.

        ValueError: the connection is closed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(function, self._conn, *args, **kwargs)))
        return future
