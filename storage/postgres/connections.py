"""The pool, as everything else in the adapter uses it: one statement at a time, a deadline, and the port's errors.

Making the pool is `opening`'s business; what its errors mean is `failures`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from storage.errors import Unavailable
from storage.postgres.failures import AGAIN, from_postgres

ATTEMPTS: Final = 5
"""How often a statement is sent that PostgreSQL ended for the sake of another one."""
CALLS_MAX: Final = 4096
"""Calls that may wait for a connection or run at once; the next one is refused with Unavailable."""

T = TypeVar("T")

_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
)


class Connections:
    """Lends connections to calls that are one statement each. answer_s: the time for one call, waiting included."""

    def __init__(self, *, pool: asyncpg.Pool, answer_s: float) -> None:
        self._pool = pool
        self._answer_s = answer_s
        self._calls = 0
        self._closed = False

    @property
    def size(self) -> int:
        """How many connections are open."""
        return int(self._pool.get_size())

    async def run(self, call: Callable[[Any], Awaitable[T]], *, unknown: str = "") -> T:
        """What `call` gets of a connection; it is called again where PostgreSQL undid it for the sake of another.

        Unavailable: closed, `CALLS_MAX` calls wait, no connection or no answer within answer_s. Other StorageErrors as
        the server says. unknown: what to add to an error after which nobody knows whether it was carried out.
        """
        if self._closed:
            raise Unavailable("storage is closed")
        if self._calls >= CALLS_MAX:
            raise Unavailable(f"{CALLS_MAX} calls wait for the database already; retry later")
        self._calls += 1
        try:
            async with asyncio.timeout(self._answer_s):
                for _ in range(ATTEMPTS - 1):
                    try:
                        return await self._once(call)
                    except asyncpg.PostgresError as error:
                        if error.sqlstate not in AGAIN:
                            raise
                return await self._once(call)
        except _FAILURES as error:
            raise from_postgres(error, unknown=unknown) from None
        finally:
            self._calls -= 1

    def close(self) -> None:
        """Refuse further calls. The connections are closed by who opened them."""
        self._closed = True

    async def _once(self, call: Callable[[Any], Awaitable[T]]) -> T:
        async with self._pool.acquire() as connection:
            try:
                return await call(connection)
            except asyncpg.InternalClientError:
                # The server ended the connection before asyncpg noticed; given back, it would fail the next call too.
                connection.terminate()
                raise
