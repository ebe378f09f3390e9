"""The pool, as everything else in the adapter uses it: one statement at a time, a deadline, and the port's errors.

Making connections is `connecting`'s business; what their errors mean is `failures`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from storage.errors import Unavailable
from storage.postgres.failures import AGAIN, READ_ONLY, from_postgres

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
    """Lends connections to calls that are one statement each.

    tasks: owns the calls; none of its tasks fails. answer_s: the time for one call, waiting included. pooled: PgBouncer
    is between, and only what happens in one transaction happens on one connection.
    """

    def __init__(self, *, pool: asyncpg.Pool, tasks: asyncio.TaskGroup, answer_s: float, pooled: bool) -> None:
        self._pool = pool
        self._tasks = tasks
        self._answer_s = answer_s
        self._pooled = pooled
        self._calls = 0
        self._closed = False

    @property
    def size(self) -> int:
        """How many connections are open."""
        return int(self._pool.get_size())

    async def run(self, call: Callable[[Any], Awaitable[T]], *, unknown: str = "") -> T:
        """What `call` gets of a connection; it is called again where PostgreSQL undid it for the sake of another.

        Who is cancelled learns nothing: the statement goes on to its end. Were it broken off, the connection would have
        to be made anew, and whoever follows the feed is cancelled four times a second.
        Unavailable: closed, `CALLS_MAX` calls wait, no connection or no answer within answer_s. Other StorageErrors as
        the server says. unknown: what to add to an error after which nobody knows whether it was carried out.
        """
        if self._closed:
            raise Unavailable("storage is closed")
        if self._calls >= CALLS_MAX:
            raise Unavailable(f"{CALLS_MAX} calls wait for the database already; retry later")
        self._calls += 1
        task = self._tasks.create_task(self._outcome(call, unknown))
        task.add_done_callback(self._ended)
        await asyncio.wait((task,))
        if task.cancelled():
            raise Unavailable(f"storage is closing{unknown}")
        outcome = task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """Refuse further calls. The connections are closed by who opened them."""
        self._closed = True

    def _ended(self, _task: asyncio.Task[Any]) -> None:
        self._calls -= 1

    async def _outcome(self, call: Callable[[Any], Awaitable[T]], unknown: str) -> T | Exception:
        """Errors as values: raised in a task, they would end the whole group."""
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
            return from_postgres(error, unknown=unknown)
        except Exception as error:  # noqa: BLE001 - a bug is told to its caller; it must not end the others
            return error

    async def _once(self, call: Callable[[Any], Awaitable[T]]) -> T:
        async with self._pool.acquire() as connection:
            try:
                return await (_in_transaction(connection, call) if self._pooled else call(connection))
            except BaseException as error:
                # After an answer of the server the connection is good, unless that server has stepped down. After
                # anything else it may never answer again, and giving it back would wait for it.
                if not isinstance(error, asyncpg.PostgresError) or error.sqlstate == READ_ONLY:
                    connection.terminate()
                raise


async def _in_transaction(connection: asyncpg.Connection, call: Callable[[Any], Awaitable[T]]) -> T:
    """Not asyncpg's own way, which would ask a server that has fallen silent to roll back, and wait for it."""
    await connection.execute("BEGIN")
    try:
        answer = await call(connection)
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return answer
