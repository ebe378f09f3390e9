"""What has been kept long enough is forgotten; what lives is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import housekeeping
from broker.clock import FakeClock
from storage.records import LeaseRecord


async def comes(house: Any, condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds, while time goes on: on a busy machine a turn of housekeeping begins later than due."""

    async def holds() -> bool:
        if await condition():
            return True
        await house.elapse(2)
        return False

    await house.until(holds)


async def test_ended_leases_and_sessions_are_forgotten_after_their_time(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """Not before, and a lease that lives stays however old it is."""
    async with open_house(clock=clock, leases__retention="60s") as house:
        await prepare(house)
        await house.put("github/other")
        async with welcomed(house) as gone:
            await gone.lease("github/ci")
        await house.until(lambda: len(house.broker.sessions) == 0)
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            other = (await worker.lease("github/other"))["lease"]
            await worker.ask("release", leases=[other])
            await house.elapse(58)
            assert len(await house.leases()) == 3
            assert len(await house.sessions()) == 2
            await house.elapse(124)

            async def pruned() -> bool:
                return len(await house.leases()) == 1 and len(await house.sessions()) == 1

            await comes(house, pruned)
            assert (await house.row(lease)).state == "live"


async def test_old_changes_are_forgotten_and_the_feed_goes_on(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed keeps its newest changes, and nobody who follows it misses one."""
    monkeypatch.setattr(housekeeping, "_FEED_KEPT", 5)
    async with open_house(clock=clock) as house:
        await prepare(house)
        for number in range(20):
            await house.put(f"github/t{number}")
        await house.elapse(62)

        async def short() -> bool:
            return len(await house.storage.feed(0)) <= 5

        await comes(house, short)
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
            await house.put("github/ci", b"two")
            assert (await worker.push())["value"] == "two"


async def test_a_minute_of_failing_storage_is_made_up_for(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """Housekeeping that could not be done is done a minute later."""
    async with open_house(clock=clock, leases__retention="10s") as house:
        await prepare(house)
        async with welcomed(house) as worker:
            lease = (await worker.lease("github/ci"))["lease"]
            await worker.ask("release", leases=[lease])
            house.storage.hoards = True
            await house.elapse(62)
            house.storage.hoards = False
            assert len(await house.storage.due(LeaseRecord, "prune_at", clock.now())) == 1
            await house.elapse(62)

            async def pruned() -> bool:
                return await house.leases() == []

            await comes(house, pruned)
