"""Following the change feed: nothing skipped, trouble told in time, and those who wait are woken or told off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker import feed as module
from broker.clock import FakeClock
from broker.errors import Tampered, Unavailable
from broker.feed import Feed
from storage.errors import Unavailable as StorageUnavailable
from storage.memory import open_memory
from storage.port import Change, Commit


class Broken:
    """A real storage whose feed can be made to fail or to hang."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.error: Exception | None = None
        self.hangs = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def feed(self, after: int, limit: int = 1000) -> list[Change]:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        found: list[Change] = await self._storage.feed(after, limit)
        return found

    async def position(self) -> int:
        if self.error is not None:
            raise self.error
        found: int = await self._storage.position()
        return found

    async def announce(self, *names: str) -> None:
        await self._storage.commit(Commit(announce=[("token", (name,)) for name in names]))


class Following:
    """A feed that runs, and what it applied."""

    def __init__(self, storage: Broken, clock: FakeClock) -> None:
        self.storage = storage
        self.clock = clock
        self.feed = Feed(storage=storage, clock=clock, start=0, stale_s=3.0)
        self.applied: list[str] = []
        self.reloaded: list[str] = []
        self.error: Exception | None = None

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.error is not None:
            raise self.error
        self.applied += [str(change.key[0]) for change in changes]

    async def reload(self) -> None:
        if self.error is not None:
            raise self.error
        self.reloaded.append(self.feed.trouble)

    async def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and the feed take a few turns."""
        await self.clock.advance(seconds)
        for _ in range(3):
            await asyncio.sleep(0.01)
            await self.clock.advance(0.0)


@pytest.fixture
async def following(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Runs a feed over a storage in memory, polling quickly."""
    monkeypatch.setattr(module, "_POLL_S", 0.005)
    monkeypatch.setattr(module, "_READ_S", 0.05)

    @asynccontextmanager
    async def follow() -> AsyncIterator[Following]:
        async with open_memory(f"memory:{request.node.name}") as storage, asyncio.TaskGroup() as tasks:
            each = Following(Broken(storage), FakeClock())
            running = tasks.create_task(each.feed.run(each.apply, each.reload))
            yield each
            running.cancel()

    async with follow() as each:
        yield each


async def test_every_change_is_applied_once_in_order(following: Following) -> None:
    """Also more of them than one page holds."""
    names = [f"t{number}" for number in range(2500)]
    await following.storage.announce(*names)
    await following.feed.caught_up()
    assert following.applied == names


@pytest.mark.parametrize("error", [Unavailable("busy"), StorageUnavailable("busy"), Tampered("forged")], ids=repr)
async def test_a_page_that_cannot_be_applied_is_applied_later(following: Following, error: Exception) -> None:
    """Nothing is skipped, whatever went wrong."""
    following.error = error
    await following.storage.announce("a", "b")
    await following.turn(1.0)
    assert following.applied == []
    following.error = None
    await following.turn(1.0)
    assert following.applied == ["a", "b"]


async def test_silence_is_trouble_after_three_seconds_and_ends_with_the_next_read(following: Following) -> None:
    """Measured from the beginning of the last read that succeeded."""
    await following.turn()
    following.storage.error = StorageUnavailable("busy")
    await following.turn()
    await following.clock.advance(2.9)
    assert following.feed.trouble == ""
    await following.clock.advance(0.2)
    assert "3." in following.feed.trouble
    following.storage.error = None
    await following.turn(0.5)
    assert following.feed.trouble == ""


async def test_a_storage_that_hangs_is_asked_again(following: Following) -> None:
    """A read that gets no answer is given up, told as trouble, and tried again."""
    following.storage.hangs = True
    await following.turn()
    await following.clock.advance(3.5)
    assert following.feed.trouble != ""
    following.storage.hangs = False
    async with asyncio.timeout(2):
        while following.feed.trouble:
            await following.turn(0.2)


async def test_tampering_is_trouble_at_once(following: Following) -> None:
    """No three seconds of grace for rows that were forged; the reason stays with the operator."""
    following.error = Tampered("worker ci-1 is forged")
    await following.storage.announce("a")
    await following.turn()
    assert following.feed.tampered == "worker ci-1 is forged"
    assert "tampered" in following.feed.trouble
    assert "ci-1" not in following.feed.trouble
    following.error = None
    await following.turn(1.0)
    assert (following.feed.trouble, following.feed.tampered) == ("", "")


async def test_waiting_ends_when_what_was_committed_is_applied(following: Following) -> None:
    """Many wait, for different changes; each returns when its own is applied."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(50):
            await following.storage.announce(f"t{number}")
            tasks.create_task(following.feed.caught_up())
    assert len(following.applied) == 50
    assert not following.feed._waiters


async def test_waiting_in_vain_is_unavailable_and_leaves_nothing(following: Following) -> None:
    """Those who gave up, or were cancelled, are not kept while the feed stands still."""
    following.error = Unavailable("busy")
    await following.storage.announce("a")
    with pytest.raises(Unavailable):
        await following.feed.caught_up(timeout_s=0.05)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(following.feed.caught_up())
        await following.turn()
        waiting.cancel()
    assert not following.feed._waiters


async def test_waiting_on_a_storage_that_fails_is_unavailable(following: Following) -> None:
    """Not an error of storage, which no edge would translate."""
    following.storage.error = StorageUnavailable("busy")
    with pytest.raises(Unavailable):
        await following.feed.caught_up(timeout_s=0.5)


async def test_a_feed_that_was_pruned_too_far_starts_over(following: Following) -> None:
    """Where lines were forgotten unread, all is read again, nothing is granted until then, and the feed goes on."""
    await following.storage.announce("read")
    await following.feed.caught_up()
    following.error = Unavailable("not now")
    await following.storage.announce("unread-1", "unread-2", "kept")
    await following.storage.prune_feed(3)
    await following.turn(0.2)
    assert "forgotten" in following.feed.trouble
    following.error = None
    await following.turn(0.2)
    await following.feed.caught_up()
    assert [trouble[:22] for trouble in following.reloaded] == ["changes were forgotten"]
    assert following.feed.trouble == ""
    await following.storage.announce("later")
    await following.feed.caught_up()
    assert following.applied == ["read", "later"]


async def test_a_feed_that_was_pruned_up_to_what_was_read_goes_on(following: Following) -> None:
    """Forgetting what everybody has read costs nobody anything."""
    await following.storage.announce("one", "two")
    await following.feed.caught_up()
    await following.storage.prune_feed(2)
    await following.storage.announce("three")
    await following.feed.caught_up()
    assert following.reloaded == []
    assert following.applied == ["one", "two", "three"]
