"""Single flight: many wait for one piece of work, and none of them can spoil it for the others.

What the work is, and what its result means, do not live here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from broker.vault.counters import VaultCounters

T = TypeVar("T")


class Flights(Generic[T]):
    """Work under way, one piece at most per key. Results are values, never exceptions.

    tasks: the group that owns the work. given_up: what waiters get if their work is cancelled.
    """

    def __init__(self, *, tasks: asyncio.TaskGroup, given_up: T, counters: VaultCounters) -> None:
        self._tasks = tasks
        self._given_up = given_up
        self._counters = counters
        self._flights: dict[bytes, asyncio.Future[T]] = {}
        self._running: set[asyncio.Task[T]] = set()

    def __len__(self) -> int:
        """How many pieces of work are under way, forgotten ones included."""
        return len(self._running)

    def get(self, key: bytes) -> asyncio.Future[T] | None:
        """The result to come of the work under way for `key`, if any; wait for it with `wait` only."""
        return self._flights.get(key)

    def launch(self, key: bytes, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Start `work` for `key`."""
        landed: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._flights[key] = landed
        task = self._tasks.create_task(work)
        self._running.add(task)
        self._counters.in_flight += 1
        # A callback, not the end of a coroutine: a task that is cancelled before its first step runs no line of one.
        task.add_done_callback(lambda task: self._land(key, landed, task))
        return landed

    async def wait(self, landed: asyncio.Future[T], *, wait_s: float) -> T:
        """The result. TimeoutError after wait_s; the work goes on, as it does if a waiter is cancelled."""
        self._counters.waiters += 1
        try:
            async with asyncio.timeout(wait_s):
                # Without the shield, cancelling one waiter would cancel the future that all of them wait for.
                return await asyncio.shield(landed)
        finally:
            self._counters.waiters -= 1

    def forget(self) -> None:
        """Let everything under way land for those who wait already; who comes later starts anew."""
        self._flights.clear()

    def cancel(self) -> None:
        """End everything under way."""
        for task in self._running:
            task.cancel()

    def _land(self, key: bytes, landed: asyncio.Future[T], task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        self._counters.in_flight -= 1
        if self._flights.get(key) is landed:
            del self._flights[key]
        # An exception is a bug of ours; the task group raises it, and waiters need not hang for it meanwhile.
        lost = task.cancelled() or task.exception() is not None
        landed.set_result(self._given_up if lost else task.result())
