"""Operations that read much take turns, so that asking for them without end stops nobody's work."""

from __future__ import annotations

import asyncio

import pytest

from broker.api.routes import ROUTES
from broker.api.turns import ROOM, Turn, Turns
from broker.errors import RateLimited


async def hold(turns: Turns, turn: Turn | None, admin: str, until: asyncio.Event, began: list[str]) -> None:
    async with turns.taken(turn, admin):
        began.append(admin)
        await until.wait()


async def test_one_search_runs_and_the_others_wait() -> None:
    """The next one begins when the one before has ended."""
    turns, done, began = Turns(), asyncio.Event(), []
    async with asyncio.TaskGroup() as tasks:
        for admin in ("ann", "bob", "cid"):
            tasks.create_task(hold(turns, Turn.SEARCH, admin, done, began))
        await asyncio.sleep(0.01)
        assert began == ["ann"]
        done.set()
    assert began == ["ann", "bob", "cid"]


async def test_one_admin_does_not_take_every_place() -> None:
    """Beyond an admin's own places it is refused; another one still finds a place."""
    turns, done, began = Turns(), asyncio.Event(), []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(ROOM[Turn.SEARCH].each):
            tasks.create_task(hold(turns, Turn.SEARCH, "eve", done, began))
        await asyncio.sleep(0.01)
        with pytest.raises(RateLimited) as refused:
            await hold(turns, Turn.SEARCH, "eve", done, began)
        assert refused.value.retry_after_s
        tasks.create_task(hold(turns, Turn.SEARCH, "ann", done, began))
        await asyncio.sleep(0.01)
        done.set()
    assert began.count("ann") == 1


async def test_a_turn_that_fails_or_is_cancelled_is_given_back() -> None:
    """Nothing that happens within a turn, or while waiting for one, keeps a place for ever."""
    turns, never, began = Turns(), asyncio.Event(), []
    for _ in range(3):
        with pytest.raises(ValueError, match="boom"):
            async with turns.taken(Turn.VERIFY, "ann"):
                raise ValueError("boom")
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(hold(turns, Turn.VERIFY, "ann", never, began))
            waiting = tasks.create_task(hold(turns, Turn.VERIFY, "bob", never, began))
            await asyncio.sleep(0.01)
            waiting.cancel()
            held.cancel()
    assert began == ["ann"] * 3
    assert not any(counter for counter in turns._here.values())


async def test_what_reads_little_takes_no_turn() -> None:
    """Any number of ordinary requests run at once."""
    turns, done, began = Turns(), asyncio.Event(), []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(hold(turns, None, "ann", done, began))
        await asyncio.sleep(0.01)
        assert len(began) == 100
        done.set()


def test_whatever_does_much_takes_a_turn() -> None:
    """And the kill switch waits for nobody."""
    turns = {route.operation: route.turn for route in ROUTES}
    assert {name for name, turn in turns.items() if turn is not None} == {
        "listLeases",
        "tellLeases",
        "reviewAccess",
        "pruneGrants",
        "listSessions",
        "exportAudit",
        "takeBackup",
        "verifyAudit",
        "proveEntry",
        "rewrapKeyring",
        "resealKeyring",
        "rewrapRoot",
        "retireKmsKey",
    }
    assert turns["revokeLeases"] is None


async def test_searches_without_end_are_told_to_come_back(site) -> None:
    """Of a hundred at once some are refused with a time to come back, and the next one is served."""
    answers = await asyncio.gather(*(site.ask("GET", "/v1/leases?all=true", role="reader") for _ in range(100)))
    assert {answer.status for answer in answers} == {200, 429}
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 429)
    assert (await site.ask("GET", "/v1/leases", role="reader")).status == 200
