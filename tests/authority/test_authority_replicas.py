"""Several replicas on one database: they converge, and none calls another's rightful change tampering."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.authority.follow import PAUSES_S
from broker.errors import Conflict, Unavailable
from storage.conformance.samples import sample
from storage.port import PAGE_MAX, Delete, Expect
from storage.records import GrantRecord, TokenRecord, WorkerRecord


def state(authority: Any) -> tuple[Any, ...]:
    """Everything that two replicas must agree on."""
    books = [{row.key: row for row in book} for book in (authority.workers, authority.grants)]
    return books, authority.manifests


async def test_replicas_that_write_at_once_converge(cluster: Any, news: Any, worker: Any, grant: Any) -> None:
    """Commits of two replicas to the same tables, at the same time, all succeed and end in one state everywhere."""
    async with cluster.replica() as (one, storage_one), cluster.replica() as (two, storage_two):

        async def work(authority: Any, storage: Any, name: str) -> None:
            for number in range(12):
                await authority.commit([], inserts=[worker(f"{name}-{number}"), grant(f"{name}-{number}")])
                if number % 3 == 1:
                    row = authority.workers.get((f"{name}-{number}",))
                    await authority.commit([], updates=[msgspec.structs.replace(row, disabled=True, rev=2)])
                if number % 4 == 3:
                    await authority.commit([], deletes=[Delete(GrantRecord, (f"{name}-{number}",), 1)])
                await news(authority, storage)

        async with asyncio.TaskGroup() as group:
            group.create_task(work(one, storage_one, "one"))
            group.create_task(work(two, storage_two, "two"))
        await news(one, storage_one)
        await news(two, storage_two)
        assert (len(one.workers), len(one.grants)) == (24, 18)
        assert state(one) == state(two)
        assert await one.check() == []
        async with cluster.replica() as (three, _):
            assert state(three) == state(one)


async def test_a_change_reaches_the_other_replica_through_the_feed(cluster: Any, news: Any, worker: Any) -> None:
    """Insert, update and delete by one replica are in the other's book after it read the feed."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, storage):
        await one.commit([], inserts=[worker("ann")])
        told = await news(two, storage)
        assert [(change.table, change.key) for change in told] == [("worker", ("ann",))]
        assert two.workers.get(("ann",)) == one.workers.get(("ann",))
        await one.commit([], updates=[worker("ann", disabled=True, rev=2)])
        await news(two, storage)
        assert two.workers.get(("ann",)).disabled
        await one.commit([], deletes=[Delete(WorkerRecord, ("ann",), 2)])
        await news(two, storage)
        assert len(two.workers) == 0


async def test_of_two_changes_of_one_row_one_wins(cluster: Any, worker: Any) -> None:
    """The replica that did not know of the other's change of the same row gets a conflict that says so."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, _):
        await one.commit([], inserts=[worker("ann")])
        await two.refresh([])
        await one.commit([], updates=[worker("ann", groups=("ops",), rev=2)])
        with pytest.raises(Conflict, match="'ann' of table worker is at revision 2, not at revision 1"):
            await two.commit([], updates=[worker("ann", disabled=True, rev=2)])
        assert two.workers.get(("ann",)).groups == ("ops",)
        assert not two.workers.get(("ann",)).disabled


async def test_a_lost_race_for_the_table_is_no_conflict(cluster: Any, worker: Any) -> None:
    """A commit whose own rows nobody touched succeeds although another replica has moved the table on."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, _):
        await one.commit([], inserts=[worker("ann")])
        await two.commit([], inserts=[worker("bob")])
        assert {row.name for row in two.workers} == {"ann", "bob"}


async def test_a_name_removed_elsewhere_can_be_registered_again(cluster: Any, news: Any, worker: Any) -> None:
    """A name that one replica removed is free on another that has not read the feed, and all accept the later row."""
    async with cluster.replica() as (one, storage_one), cluster.replica() as (two, _):
        await one.commit([], inserts=[worker("ann", groups=("old",))])
        await two.refresh([])
        await one.commit([], deletes=[Delete(WorkerRecord, ("ann",), 1)])
        await two.commit([], inserts=[worker("ann", groups=("fresh",))])
        await news(one, storage_one)
        assert one.workers.get(("ann",)).groups == ("fresh",)
        assert await one.check() == []


async def test_the_very_same_row_can_come_back_rightfully(cluster: Any, news: Any, worker: Any) -> None:
    """A row equal to a removed one, MAC included, is accepted when this cluster has put it back itself."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, storage):
        await one.commit([], inserts=[worker("ann")])
        first = one.workers.get(("ann",))
        await news(two, storage)
        await one.commit([], deletes=[Delete(WorkerRecord, ("ann",), 1)])
        await news(two, storage)
        await one.commit([], inserts=[worker("ann")])
        await news(two, storage)
        assert two.workers.get(("ann",)) == first


async def test_a_commit_between_reading_rows_and_manifest_is_not_tampering(
    cluster: Any, interposed: Any, news: Any, worker: Any
) -> None:
    """A replica that reads rows of one moment and a manifest of the next looks again instead of raising."""
    async with cluster.replica() as (one, _), cluster.open() as storage:
        pending = [worker(f"late-{number}") for number in range(3)]

        async def meddle(kind: Any, *_: Any) -> None:
            if kind is WorkerRecord and pending:
                await one.commit([], inserts=[pending.pop()], updates=[worker("ann", rev=4 - len(pending))])

        two = await cluster.load(interposed(storage, get_many=meddle))
        await one.commit([], inserts=[worker("ann")])
        await news(two, storage)
        assert state(two) == state(one)
        assert not pending


async def test_a_table_that_never_stands_still_is_unavailable_not_tampered(
    cluster: Any, interposed: Any, news: Any, worker: Any
) -> None:
    """When every look is overtaken by another commit, the replica says so, and catches up once it can."""
    async with cluster.replica() as (one, _), cluster.open() as storage:
        looks = 0
        restless = True

        async def meddle(kind: Any, *_: Any) -> None:
            nonlocal looks
            if kind is WorkerRecord and restless:
                looks += 1
                await one.commit([], inserts=[worker(f"late-{looks}")])

        two = await cluster.load(interposed(storage, get_many=meddle))
        await one.commit([], inserts=[worker("ann")])
        with pytest.raises(Unavailable, match="table worker changes faster"):
            await news(two, storage)
        assert looks == len(PAUSES_S)
        assert len(two.workers) == 0
        restless = False
        await news(two, storage)
        assert state(two) == state(one)


async def test_losing_every_race_for_the_table_is_unavailable(cluster: Any, plain_writer: Any, worker: Any) -> None:
    """A commit that other replicas overtake every time ends, with nothing changed."""
    async with cluster.replica() as (one, _), cluster.open() as storage:

        class Overtaken:
            count = 0

            async def commit(self, entries: Any, **parts: Any) -> Any:
                self.count += 1
                await one.commit([], inserts=[worker(f"faster-{self.count}")])
                return await plain_writer(storage).commit(entries, **parts)

        two = await cluster.load(storage, Overtaken())
        with pytest.raises(Unavailable, match="other replicas were faster"):
            await two.commit([], inserts=[worker("ann")])
        assert await storage.get(WorkerRecord, ("ann",)) is None
        assert state(two) == state(one)


async def test_changes_that_show_late_in_the_feed_are_waited_for(cluster: Any, news: Any, worker: Any) -> None:
    """A manifest that is ahead of the visible feed is no tampering, as long as the feed follows."""

    class Delayed:
        """A storage whose feed hides new lines from its first three readers, as PostgreSQL may."""

        def __init__(self, storage: Any) -> None:
            self._storage = storage
            self.walked = False
            self._hidden = 3

        def __getattr__(self, name: str) -> Any:
            return getattr(self._storage, name)

        async def feed(self, after: int, limit: int = PAGE_MAX) -> Any:
            self._hidden -= 1
            return [] if self._hidden >= 0 else await self._storage.feed(after, limit)

        async def select(self, *args: Any, **kwargs: Any) -> Any:
            self.walked = True
            return await self._storage.select(*args, **kwargs)

    async with cluster.replica() as (one, _), cluster.open() as storage:
        delayed = Delayed(storage)
        two = await cluster.load(delayed)
        delayed._hidden, delayed.walked = 3, False
        await one.commit([], inserts=[worker("ann")])
        assert [change.key for change in await two.refresh([])] == [("ann",)]
        assert state(two) == state(one)
        assert not delayed.walked


async def test_hiding_lines_of_the_feed_hides_no_change(cluster: Any, worker: Any) -> None:
    """A replica notices a revocation although an attacker removes its line from the feed."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, _):
        await one.commit([], inserts=[worker("ann")])
        await two.refresh([])
        await one.commit([], updates=[worker("ann", disabled=True, rev=2)])
        cluster.sql("DELETE FROM feed")
        told = await two.refresh([])
        assert [(change.table, change.key) for change in told] == [("worker", ("ann",))]
        assert two.workers.get(("ann",)).disabled


async def test_loading_while_others_write_ends_in_one_moment(cluster: Any, interposed: Any, worker: Any) -> None:
    """Rows changed behind a reader's back while it walks the table are read again before anything is judged."""
    async with cluster.replica() as (one, _):
        await one.commit([], inserts=[worker(f"w-{number:05}") for number in range(PAGE_MAX + 10)])
        async with cluster.open() as storage:
            changed = False

            async def meddle(kind: Any, *_: Any) -> None:
                nonlocal changed
                if kind is WorkerRecord and not changed:
                    changed = True
                    await one.commit(
                        [],
                        inserts=[worker("a-first"), worker("z-last")],
                        updates=[worker("w-00000", disabled=True, rev=2)],
                        deletes=[Delete(WorkerRecord, ("w-00001",), 1), Delete(WorkerRecord, ("w-01005",), 1)],
                    )

            two = await cluster.load(interposed(storage, select=meddle))
            assert changed
            assert state(two) == state(one)


async def test_a_commit_relies_on_rows_that_another_replica_may_change(cluster: Any, worker: Any) -> None:
    """It is lost when such a row has moved on, and this replica then knows the row, so that the next try is not."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, storage):
        await one.commit([], inserts=[worker("ann")])
        await two.refresh([])
        await one.commit([], updates=[worker("ann", groups=("ops",), rev=2)])
        token = sample(TokenRecord, 1, mac=b"")
        with pytest.raises(Conflict):
            await two.commit([], inserts=[token], expects=[Expect(WorkerRecord, ("ann",), 1)])
        assert await storage.get(TokenRecord, token.key) is None
        assert two.workers.get(("ann",)).rev == 2
        await two.commit([], inserts=[token], expects=[Expect(WorkerRecord, ("ann",), 2)])
        two.verify(await storage.get(TokenRecord, token.key))
