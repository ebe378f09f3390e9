"""Claims: one owner, who can prove it; the work moves when he dies, and nothing of his is written afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.replicas.skew import REFUSE_S
from storage.conformance.samples import lease
from storage.errors import Conflict
from storage.port import Commit
from storage.records import ClaimRecord


async def test_one_of_many_has_it(enter: Any) -> None:
    """However many ask at once and again, it is one replica's, and stays his."""
    all_of_them = [await enter(f"r{number}") for number in range(4)]
    for _ in range(3):
        answers = await asyncio.gather(*(each.claim.ask() for each in all_of_them))
        assert sum(answer is not None for answer in answers) == 1
        assert [each.claim.held for each in all_of_them] == [answer is not None for answer in answers]
    assert (await all_of_them[0].storage.get(ClaimRecord, ("work",))).rev == 1


async def test_it_moves_when_its_holder_leaves(enter: Any) -> None:
    """Whoever asks first after a stop in order has it, at once."""
    one, two = await enter("one"), await enter("two")
    await one.claim.ask()
    assert await two.claim.ask() is None
    one.freeze()
    await one.roll.leave()
    assert await two.claim.ask() is not None


async def test_it_moves_when_its_holder_dies(enter: Any, until: Any) -> None:
    """Not before the holder is found silent, and soon afterwards."""
    one, two = await enter("one"), await enter("two")
    await one.claim.ask()
    one.freeze()
    assert await two.claim.ask() is None

    async def moved() -> bool:
        return await two.claim.ask() is not None

    await until(moved)
    assert await one.is_dead()


async def test_what_a_frozen_holder_still_writes_is_refused(enter: Any, until: Any) -> None:
    """A commit that relies on the claim is lost, whole, once another replica has it."""
    one, two = await enter("one"), await enter("two")
    claimed = await one.claim.ask()
    await one.storage.commit(Commit(inserts=[lease(1)], expects=[claimed]))
    one.freeze()

    async def moved() -> bool:
        return await two.claim.ask() is not None

    await until(moved)
    with pytest.raises(Conflict):
        await one.storage.commit(Commit(inserts=[lease(2)], expects=[claimed]))
    assert await one.storage.get(type(lease(2)), lease(2).key) is None
    assert await one.claim.ask() is None


async def test_a_holder_whose_clock_is_off_gives_it_away(enter: Any) -> None:
    """The work is done by instants, so it goes to somebody who knows the time."""
    one, two = await enter("one"), await enter("two")
    await one.claim.ask()
    one.freeze()
    one.roll.skew.seconds = REFUSE_S
    assert await one.claim.ask() is None
    assert await two.claim.ask() is not None
    one.roll.skew.seconds = 0.0
    assert await one.claim.ask() is None
