"""What changes while a session's row is being written: nobody slips through between proof and welcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.session import sessions
from storage.records import SessionRecord


@asynccontextmanager
async def held_at_the_door(house: Any, wire: Any, count: int = 1) -> AsyncIterator[list[Any]]:
    """Connections whose proof is accepted and whose session's row is not yet written; it is when the body ends."""
    house.storage.slow = lambda commit: any(isinstance(row, SessionRecord) for row in commit.inserts)
    house.storage.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:

        async def enter(connection: Any) -> None:
            with contextlib.suppress(wire.Closed):
                await connection.handshake(house.workers["ci-1"])

        dials = [wire.dial(house.url) for _ in range(count)]
        connections = [await dial.__aenter__() for dial in dials]
        entering = [tasks.create_task(enter(connection)) for connection in connections]
        await house.until(lambda: house.storage.waiting == count)
        yield connections
        house.storage.gate.set()
        await asyncio.gather(*entering)
    for dial in dials:
        await dial.__aexit__(None, None, None)


@pytest.fixture
def after(house: Any, wire: Any) -> Any:
    """Runs a change while a connection is held at the door; gives the connection after its welcome."""

    @asynccontextmanager
    async def changed(change: Any) -> AsyncIterator[Any]:
        async with wire.dial(house.url) as connection, asyncio.TaskGroup() as tasks:
            house.storage.slow = lambda commit: any(isinstance(row, SessionRecord) for row in commit.inserts)
            house.storage.gate = asyncio.Event()
            entering = tasks.create_task(connection.handshake(house.workers["ci-1"]))
            await house.until(lambda: house.storage.waiting == 1)
            await change
            await house.settled()
            house.storage.gate.set()
            await entering
            yield connection

    return changed


async def test_a_grant_removed_meanwhile_grants_nothing(house: Any, after: Any) -> None:
    """The session decides by the grants there are when it begins to lease, not by those when it knocked."""
    async with after(house.services.grants.remove(house.granted.id, actor="admin:root")) as worker:
        assert worker.welcome["type"] == "welcome"
        assert (await worker.ask("lease", token="github/ci"))["code"] == "denied"


async def test_a_group_left_meanwhile_grants_nothing(open_house: Any, wire: Any) -> None:
    """Membership counts as it is, not as it was at the door."""
    async with open_house() as house:
        who = house.workers["ci-1"] = wire.Identity("ci-1")
        await house.register(who, groups=("deploy",))
        await house.grant("group:deploy", "github/*")
        await house.put("github/ci")
        async with held_at_the_door(house, wire) as (worker,):
            await house.services.workers.update("ci-1", changes={"groups": ()}, actor="admin:root")
            await house.settled()
            house.storage.gate.set()
            await house.until(lambda: bool(worker.welcome))
            assert (await worker.ask("lease", token="github/ci"))["code"] == "denied"


async def test_a_worker_disabled_meanwhile_is_let_go(house: Any, after: Any) -> None:
    """Its connection is closed with 4403 within a second."""
    async with after(house.services.workers.disable("ci-1", actor="admin:root")) as worker:
        assert await worker.close_code(within_s=1) == 4403


async def test_a_worker_removed_meanwhile_is_let_go(house: Any, after: Any) -> None:
    """A worker that is no longer registered is not served."""
    async with after(house.services.workers.remove("ci-1", actor="admin:root")) as worker:
        assert await worker.close_code(within_s=1) == 4403


async def test_many_at_the_door_at_once_do_not_pass_the_bound(open_house: Any, prepare: Any, wire: Any) -> None:
    """Of four connections that prove themselves together, the worker may have two, and it gets two."""
    async with open_house(session={"sessions_per_worker_max": 2}) as house:
        await prepare(house)
        async with held_at_the_door(house, wire, count=2):
            for _ in range(2):
                async with wire.dial(house.url) as late:
                    with pytest.raises(wire.Closed) as closed:
                        await late.handshake(house.workers["ci-1"])
                    assert closed.value.code == 4429
        assert house.storage.waiting == 2


async def test_one_that_enters_a_draining_broker_is_sent_on(house: Any, after: Any) -> None:
    """A session that was being opened when draining began is closed with 1012, not forgotten."""
    async with after(house.broker.sessions.drain()) as worker:
        assert worker.welcome["type"] == "welcome"
        assert await worker.close_code() == 1012


async def test_a_row_that_came_too_late_is_closed(
    open_house: Any, prepare: Any, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker was refused, since storage took too long; the row that appears after all does not stay open."""
    monkeypatch.setattr(sessions, "_RETRACT_S", 0.5)
    async with open_house(session={"handshake_s": 0.3}) as house:
        who = await prepare(house)
        house.storage.late_s = 0.5
        async with wire.dial(house.url) as worker:
            with pytest.raises(wire.Closed) as closed:
                await worker.handshake(who)
            assert closed.value.code == 4408
        house.storage.late_s = 0.0

        async def closed_on_record() -> bool:
            rows = await house.sessions()
            return bool(rows) and all(row.ended_at for row in rows)

        await house.until(closed_on_record, within_s=7)
        assert len(house.broker.sessions) == 0


async def test_a_worker_that_leaves_at_the_door_leaves_no_session(house: Any, wire: Any) -> None:
    """Its row is written, and closed as soon as the broker sees that nobody is there."""
    async with held_at_the_door(house, wire) as (worker,):
        worker.socket._response.connection.transport.abort()
        house.storage.gate.set()
        await house.until(lambda: house.broker.door._unproved == 0)

        async def closed_on_record() -> bool:
            return all(row.ended_at for row in await house.sessions())

        await house.until(closed_on_record)
        assert len(house.broker.sessions) == 0
