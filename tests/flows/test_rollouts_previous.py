"""Leases of both stages through a rollout: each holder is pushed what its place says, once, and nothing is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.leases.shares import bucket
from broker.rotation.rollouts import NewRollout

ROOT = "admin:root"
NAME = "github/ci"
SHARE = 5000
IN, OUT = (
    next(name for name in (f"w-{number}" for number in range(100)) if (bucket(NAME, name, 3) < SHARE) is inside)
    for inside in (True, False)
)
Told = list[tuple[str, int]]


class Pair:
    """One worker in the first step and one outside, which hold both stages of a token: 1 previous, 2 current."""

    def __init__(self, house: Any, workers: dict[str, Any], grant: str) -> None:
        self.grant = grant
        self._house = house
        self._workers = workers
        self._stages: dict[str, str] = {}

    async def lease(self) -> None:
        for worker in self._workers.values():
            for stage, version in (("current", 2), ("previous", 1)):
                granted = await worker.ask("lease", token=NAME, stage=stage)
                assert granted["version"] == version
                self._stages[granted["lease"]] = stage

    async def told(self, name: str, count: int) -> Told:
        """What this worker is pushed next, by stage; it applies each, and nothing but versions may come."""
        worker, frames = self._workers[name], []
        for _ in range(count):
            frame = await worker.push()
            assert frame["type"] == "rotated", frame
            await worker.send(type="ack", lease=frame["lease"], version=frame["version"], status="applied")
            frames.append((self._stages[frame["lease"]], frame["version"]))
        return sorted(frames)

    async def at_rest(self) -> bool:
        """Whether all that was decided is sent, and neither worker was sent anything."""
        await self._house.settled()
        return all([await worker.silent() for worker in self._workers.values()])


@pytest.fixture
async def pair(house: Any, wire: Any, players: Any) -> AsyncIterator[Pair]:
    await house.put(NAME, b"two")
    await house.put(NAME, b"three", stage="pending")
    who = {name: wire.Identity(name) for name in (IN, OUT)}
    for each in who.values():
        await house.register(each, groups=("crew",))
    grant = await house.services.grants.add(players.previous("group:crew"), actor=ROOT)
    await house.settled()
    async with wire.dial(house.url) as one, wire.dial(house.url) as two:
        workers = {IN: one, OUT: two}
        for name, worker in workers.items():
            assert (await worker.handshake(who[name]))["type"] == "welcome"
        pair = Pair(house, workers, grant.id)
        await pair.lease()
        yield pair


async def begin(house: Any, **terms: Any) -> None:
    new = NewRollout(version=3, shares=(SHARE, 10_000), wait_s=600.0, **terms)
    await house.services.rollouts.start(NAME, new, actor=ROOT)


async def test_each_step_and_the_promotion_push_each_stage_once(house: Any, pair: Pair) -> None:
    """Whoever gets the new version has the one before as his previous; the others have it the other way round."""
    await begin(house, bake_s=0.0, retire="never")
    assert await pair.told(IN, 2) == [("current", 3), ("previous", 2)]
    assert await pair.told(OUT, 1) == [("previous", 3)]
    assert await pair.told(OUT, 2) == [("current", 3), ("previous", 2)]

    async def done() -> bool:
        return bool((await house.services.rollouts.status(NAME))[0].state == "done")

    await house.until(done)
    assert await pair.at_rest()


async def test_an_abort_pushes_back_what_the_rollout_changed_and_nothing_else(house: Any, pair: Pair) -> None:
    """Both stages have what they had before it began."""
    await begin(house, bake_s=600.0)
    assert await pair.told(IN, 2) == [("current", 3), ("previous", 2)]
    assert await pair.told(OUT, 1) == [("previous", 3)]
    await house.services.rollouts.abort(NAME, actor=ROOT)
    assert await pair.told(IN, 2) == [("current", 2), ("previous", 1)]
    assert await pair.told(OUT, 1) == [("previous", 1)]
    assert await pair.at_rest()


async def test_a_grant_that_is_removed_during_a_rollout_counts_for_nothing(house: Any, pair: Pair) -> None:
    """Who lost his right holds nothing, so neither the version nor the rollout is to blame."""
    await begin(house, bake_s=600.0)
    assert await pair.told(IN, 2) == [("current", 3), ("previous", 2)]
    await house.services.grants.remove(pair.grant, actor=ROOT)

    async def nobody() -> bool:
        record, said = await house.services.rollouts.status(NAME)
        return bool(record.state == "running") and said.holders == 0

    await house.until(nobody)
    looked = house.broker.rollouts.looked
    await house.until(lambda: house.broker.rollouts.looked > looked + 2)
    assert await nobody()
