"""Who still uses a version: looked for seldom, whatever number of rotations wait."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.clock import FakeClock
from broker.rotation.users import LOAD, Users
from storage.port import Page
from storage.records import LeaseRecord


class SlowDesk:
    """Leases of nobody, whose every page takes 2 s of the clock, and waits for the gate."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.gate = asyncio.Event()
        self.gate.set()
        self.pages = 0

    async def list_leases(self, **_asked: Any) -> Page[LeaseRecord]:
        self.pages += 1
        await self._clock.advance(2)
        await self.gate.wait()
        return Page(records=[], next=None)


async def test_a_dear_walk_is_not_repeated_soon() -> None:
    """Fifty rotations that wait share a tenth of the time, and who is told nothing asks again."""
    clock = FakeClock()
    desk = SlowDesk(clock)
    users = Users(leases=desk, clock=clock)  # type: ignore[arg-type]  # what walks ask of the desk, and no more
    assert await users.any("app/0", 1) is False
    assert [await users.any(f"app/{number}", 1) for number in range(50)] == [None] * 50
    assert desk.pages == 1
    await clock.advance(2 * LOAD)
    assert await users.any("app/7", 1) is False
    assert desk.pages == 2


async def test_at_a_deadline_it_is_looked_at_once() -> None:
    """Names are wanted then, so nothing is put off; and two walks are never under way together."""
    clock = FakeClock()
    desk = SlowDesk(clock)
    users = Users(leases=desk, clock=clock)  # type: ignore[arg-type]  # what walks ask of the desk, and no more
    desk.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        named = [tasks.create_task(users.named(f"app/{number}", 1)) for number in range(3)]
        await clock.advance(0)
        assert (desk.pages, await users.any("app/9", 1)) == (1, None)
        desk.gate.set()
    assert [task.result() for task in named] == [(), (), ()]
    assert desk.pages == 3
