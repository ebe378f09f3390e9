"""The roll: a name belongs to one living process, the dead are found, and those that come back learn of it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.clock import SystemClock
from broker.replicas.roll import DatabaseWentBack, NameTaken, on_the_roll, replicas
from storage.port import Commit, Delete
from storage.postgres import open_postgres
from storage.records import ReplicaRecord


async def test_a_living_replicas_name_is_refused(enter: Any) -> None:
    """The second process of a name does not start, and is told what to do."""
    await enter("one")
    with pytest.raises(NameTaken, match=r"'one'.*server\.instance"):
        await enter("one")


async def test_a_name_is_free_after_its_process_left(enter: Any, url: str) -> None:
    """A restart in order waits for nothing."""
    clock = SystemClock()
    async with open_postgres(url) as storage:
        async with on_the_roll(storage, clock=clock, instance="one", release="1") as first:
            life = first.record.life
        async with asyncio.timeout(0.4), on_the_roll(storage, clock=clock, instance="one", release="1") as second:
            assert second.record.life != life


async def test_a_crashed_life_gives_its_name_to_the_next(enter: Any) -> None:
    """A row that nobody moves is taken over after it was watched."""
    before = await enter("one")
    before.freeze()
    after = await enter("one")
    row = await after.row()
    assert row.life == after.roll.record.life != before.roll.record.life


async def test_who_lost_his_name_ends(enter: Any) -> None:
    """A process that stood still while another took its name may not go on."""
    before = await enter("one")
    before.freeze()
    await enter("one")
    with pytest.raises(NameTaken):
        await before.roll.run(position=lambda: 0, lapsed=lambda: None)


async def test_a_silent_replica_is_found(enter: Any, until: Any) -> None:
    """One that stands still is dead to the others within some beats, and those that beat are not."""
    one, two, three = await enter("one"), await enter("two"), await enter("three")
    two.freeze()
    await until(two.is_dead)
    assert not await one.is_dead()
    assert not await three.is_dead()


async def test_who_was_found_silent_comes_back_and_lets_go(enter: Any, until: Any) -> None:
    """It is on the roll again, and has been told once that its sessions may have been closed."""
    one, two = await enter("one"), await enter("two")
    two.freeze()
    await until(two.is_dead)
    two.thaw()
    await until(lambda: two.lapsed == 1)
    assert not await two.is_dead()
    await until(lambda: one.roll.alive == 2)
    assert (two.lapsed, two.roll.lapses, one.lapsed) == (1, 1, 0)


async def test_a_forgotten_replica_enters_itself_again(enter: Any, until: Any) -> None:
    """Also when its row is gone, because its sessions have been closed meanwhile."""
    one, two = await enter("one"), await enter("two")
    two.freeze()
    await until(two.is_dead)
    row = await two.row()
    await one.storage.commit(Commit(deletes=[Delete(ReplicaRecord, row.key, row.rev)]))
    two.thaw()
    await until(lambda: two.lapsed == 1)
    assert not await two.is_dead()
    again = await two.row()
    assert again.rev >= row.rev, "a revision that was once written does not come back"


async def test_who_finds_an_older_database_ends(enter: Any, postgres: Any, url: str) -> None:
    """A standby without the newest commits was promoted: what is in memory was read from commits that are gone."""
    one = await enter("one")
    one.freeze()
    row = await one.row()
    database = url.rpartition("/")[2]
    postgres.sql(database, f"UPDATE tokenbroker.replica SET rev = {row.rev - 1}")
    with pytest.raises(DatabaseWentBack, match=r"'one'.*start again"):
        await one.roll.run(position=lambda: 0, lapsed=lambda: None)


async def test_a_beat_that_landed_unconfirmed_is_no_lapse(enter: Any, until: Any) -> None:
    """The row is ahead of what its replica knows; it goes on from there, and lets nobody go."""
    one = await enter("one")
    one.freeze()
    row = await one.row()
    await one.storage.commit(Commit(updates=[_next(row)]))
    one.position = 7
    one.thaw()

    async def moved() -> bool:
        return (await one.row()).position == 7

    await until(moved)
    assert one.lapsed == 0


async def test_who_was_away_itself_judges_nobody_by_that(enter: Any, until: Any) -> None:
    """An observer that stood still counts what it sees afterwards, not the time that it missed."""
    one, two = await enter("one"), await enter("two")
    await until(lambda: one.roll.alive == 2)
    one.freeze()
    two.freeze()
    # Much longer than a silent replica is given; then both go on.
    await asyncio.sleep(0.6)
    two.thaw()
    one.thaw()
    position = two.position = 5

    async def read() -> bool:
        return {row.position for row in await replicas(one.storage)} == {0, position}

    await until(read)
    assert (one.lapsed, two.lapsed) == (0, 0)


def _next(row: ReplicaRecord) -> Any:
    return msgspec.structs.replace(row, rev=row.rev + 1)
