"""Replicas as rows of a real PostgreSQL database, without the brokers around them. Beats are short, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from broker.clock import Clock, SystemClock
from broker.replicas import roll as module
from broker.replicas.claim import Claim
from broker.replicas.roll import Roll, on_the_roll
from storage.port import Storage
from storage.postgres import open_postgres
from storage.records import ReplicaRecord


class Replica:
    """A replica that can be frozen, as a process that is stopped. lapsed: how often it was told to let go."""

    def __init__(self, roll: Roll, storage: Storage, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self.roll = roll
        self.storage = storage
        self.claim = Claim(name="work", storage=storage, roll=roll, clock=clock)
        self.lapsed = 0
        self.position = 0
        self._tasks = tasks
        self._beating: asyncio.Task[None] | None = None

    def thaw(self) -> asyncio.Task[None]:
        """Let it beat."""
        self._beating = self._tasks.create_task(self.roll.run(position=lambda: self.position, lapsed=self._let_go))
        return self._beating

    def freeze(self) -> None:
        """Let it do nothing at all."""
        assert self._beating is not None
        self._beating.cancel()

    async def row(self) -> ReplicaRecord | None:
        return await self.storage.get(ReplicaRecord, self.roll.record.key)

    async def is_dead(self) -> bool:
        row = await self.row()
        return row is None or row.ended_at is not None

    def _let_go(self) -> None:
        self.lapsed += 1


@pytest.fixture
def url(postgres: Any) -> str:
    """An empty database."""
    found: str = postgres.url(postgres.create())
    return found


@pytest.fixture
async def enter(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Enters replicas; those that were let in leave with the test."""
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "SILENT_BEATS", 6)
    monkeypatch.setattr(module, "WATCH_S", 0.5)
    monkeypatch.setattr(module, "_LOOK_S", 0.02)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        entered: list[Replica] = []

        async def one(instance: str, *, clock: Clock | None = None) -> Replica:
            own = clock or SystemClock()
            storage = await stack.enter_async_context(open_postgres(url))
            roll = await stack.enter_async_context(on_the_roll(storage, clock=own, instance=instance, release="1"))
            replica = Replica(roll, storage, own, tasks)
            replica.thaw()
            entered.append(replica)
            return replica

        yield one
        for replica in entered:
            replica.freeze()


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool] | bool]], Awaitable[None]]:
    """Waits for a condition; TimeoutError when it does not come."""

    async def wait(condition: Callable[[], Awaitable[bool] | bool]) -> None:
        async with asyncio.timeout(10):
            while True:
                holds = condition()
                if holds if isinstance(holds, bool) else await holds:
                    return
                await asyncio.sleep(0.01)

    return wait
