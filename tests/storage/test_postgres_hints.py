"""Announcements over NOTIFY are hints, and anybody who may connect can send them."""

from __future__ import annotations

import asyncio
from typing import Any

from storage.port import Commit
from storage.postgres import open_postgres


async def test_a_false_announcement_wakes_once(postgres: Any) -> None:
    """A position that will never be reached wakes who waits, and afterwards there is nothing to be had early."""
    database = postgres.create()
    loop = asyncio.get_running_loop()
    async with open_postgres(postgres.url(database)) as storage, asyncio.TaskGroup() as tasks:
        after = (await storage.commit(Commit(announce=[("token", ("a",))]))).position
        waiting = tasks.create_task(storage.wait(after, 60.0))
        while not waiting.done():  # until the connection listens
            postgres.sql(database, "SELECT pg_notify('tokenbroker', '999999999999999999')")
            await asyncio.sleep(0.05)
        began = loop.time()
        while loop.time() < began + 1.0:  # what was sent meanwhile is heard
            await storage.wait(after, 0.2)
        began = loop.time()
        await storage.wait(after, 0.5)
        assert loop.time() - began >= 0.45
