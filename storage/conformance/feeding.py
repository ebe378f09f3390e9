"""Laws of the feed: every announced change once, in commit order, and nothing ever appears before what was read."""

from __future__ import annotations

import asyncio

import pytest

from storage.conformance.opener import Opener
from storage.conformance.samples import lease
from storage.errors import Conflict
from storage.port import Change, Commit, Storage
from storage.table import Key

SOON_S = 2.0
"""What "soon" means to `wait`, with room for a busy machine; the answer it must beat takes a minute."""


class FeedLaws:
    """Who follows the feed misses nothing."""

    async def test_a_commit_announces_in_its_order(self, opener: Opener) -> None:
        """Lines come as they were given, with table and key, and the commit's position is the last one's."""
        lines: list[tuple[str, Key]] = [
            ("lease", ("a",)),
            ("version", ("team/token", 7)),
            ("anything", ("é\0", -1, 2**63 - 1)),
            ("lease", ("a",)),
        ]
        async with opener() as storage:
            done = await storage.commit(Commit(announce=lines))
            changes = await storage.feed(0)
            assert [(change.table, change.key) for change in changes] == lines
            assert changes[-1].position == done.position

    async def test_positions_grow_without_gaps(self, opener: Opener) -> None:
        """Each line's position is the one before it plus one; 0 is before all."""
        async with opener() as storage:
            done = await asyncio.gather(*(storage.commit(_announcing(n, lines=n % 4)) for n in range(20)))
            changes = await storage.feed(0)
            assert [change.position for change in changes] == list(range(1, 31))
            counts = [0 if not d.position else d.position - sum(m % 4 for m in range(n)) for n, d in enumerate(done)]
            assert counts == [n % 4 for n in range(20)]

    async def test_a_lost_commit_announces_nothing(self, opener: Opener) -> None:
        """A conflict leaves no line and uses up no position, alone or on its way together with others."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(0)]))
            outcomes = await asyncio.gather(
                *(
                    storage.commit(Commit(inserts=[lease(n if n % 3 else 0)], announce=[("lease", (n,))]))
                    for n in range(12)
                ),
                return_exceptions=True,
            )
            with pytest.raises(Conflict):
                await storage.commit(Commit(inserts=[lease(0)], announce=[("lease", (99,))]))
            changes = await storage.feed(0)
            assert [change.key for change in changes] == [(n,) for n in range(12) if n % 3]
            assert [change.position for change in changes] == list(range(1, 9))
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4

    async def test_a_follower_sees_every_change_once(self, opener: Opener) -> None:
        """Following the feed while two handles write gives exactly what the feed holds in the end."""
        async with opener() as one, opener() as two:
            followed: list[Change] = []
            async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
                for handle in (one, two):
                    tasks.create_task(_write(handle, turns=15))
                while not followed or followed[-1].position < 30:
                    followed += await one.feed(followed[-1].position if followed else 0, 3)
            assert followed == await two.feed(0)

    async def test_feed_begins_behind_a_position(self, opener: Opener) -> None:
        """Lines behind `after` come, at most `limit`; behind the newest there is nothing."""
        async with opener() as storage:
            await storage.commit(_announcing(0, lines=9))
            assert [change.position for change in await storage.feed(4, 3)] == [5, 6, 7]
            assert await storage.feed(9) == []
            assert await storage.feed(1000) == []

    async def test_position_is_the_newest(self, opener: Opener) -> None:
        """position is 0 at first, and then, for every handle, that of the last commit that announced something."""
        async with opener() as storage, opener() as other:
            assert await storage.position() == 0
            done = await storage.commit(_announcing(0, lines=3))
            await storage.commit(Commit(inserts=[lease(1)]))
            assert await storage.position() == done.position
            assert await other.position() == done.position

    async def test_wait_returns_at_once_for_what_is_there(self, opener: Opener) -> None:
        """A waiter that is behind does not wait, on any handle."""
        async with opener() as storage, opener() as other:
            await storage.commit(_announcing(0, lines=2))
            async with asyncio.timeout(SOON_S):
                await storage.wait(1, 60)
                await other.wait(0, 60)

    async def test_wait_wakes_on_a_change(self, opener: Opener) -> None:
        """A waiter returns soon after this handle commits something announced."""
        async with opener() as storage:
            await _wakes(storage, storage)

    async def test_wait_wakes_on_another_handles_change(self, opener: Opener) -> None:
        """A waiter returns soon after another handle commits something announced."""
        async with opener() as storage, opener() as other:
            await _wakes(storage, other)

    async def test_wait_ends_with_its_time(self, opener: Opener) -> None:
        """A waiter returns without error when nothing came, not before its time, whatever else is committed."""
        async with opener() as storage:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(storage.wait(0, 0.3))
                await storage.commit(Commit(inserts=[lease(1)]))
            assert loop.time() - began >= 0.29

    async def test_prune_feed_forgets_only_what_was_named(self, opener: Opener) -> None:
        """Lines at or before the position are gone, later ones stay."""
        async with opener() as storage:
            await storage.commit(_announcing(0, lines=5))
            await storage.prune_feed(3)
            assert [change.position for change in await storage.feed(0)] == [4, 5]

    async def test_a_position_is_never_used_twice(self, opener: Opener) -> None:
        """After the newest line was pruned, position and the next line go on from it."""
        async with opener() as storage:
            await storage.commit(_announcing(0, lines=5))
            await storage.prune_feed(5)
            assert await storage.position() == 5
            assert (await storage.commit(_announcing(1, lines=1))).position == 6


def _announcing(number: int, lines: int) -> Commit:
    return Commit(announce=[("lease", (f"{number}-{line}",)) for line in range(lines)])


async def _write(storage: Storage, turns: int) -> None:
    for turn in range(turns):
        await storage.commit(_announcing(turn, lines=1))


async def _wakes(waiting: Storage, writing: Storage) -> None:
    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(waiting.wait(0, 60))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiter.done()
        await writing.commit(_announcing(0, lines=1))
