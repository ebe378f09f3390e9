"""Which databases several processes may serve, and the clock that those processes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from broker.clock import SystemClock
from storage.memory import open_memory
from storage.port import Shared
from storage.postgres import open_postgres
from storage.sqlite import open_sqlite


async def test_postgresql_tells_its_time(postgres: Any) -> None:
    """An aware instant that was now while the call lasted; the server is on this machine."""
    clock = SystemClock()
    async with open_postgres(postgres.url(postgres.create())) as storage:
        assert isinstance(storage, Shared)
        before = clock.now()
        told = await storage.now()
        assert before <= told <= clock.now()


async def test_what_one_process_has_is_not_shared(database: Path) -> None:
    """A file and a memory are used by one process, whose clock is the only one."""
    async with open_sqlite(f"sqlite:///{database}") as file, open_memory("memory:alone") as memory:
        assert not isinstance(file, Shared)
        assert not isinstance(memory, Shared)
