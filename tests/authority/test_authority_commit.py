"""Committing through the authority: what becomes durable, what the books show, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.authority import authority as service
from broker.authority.errors import RowForged
from broker.errors import Conflict, Unavailable
from storage.port import Delete
from storage.records import ManifestRecord, TokenRecord, VersionRecord, WorkerRecord


def token(name: str, at: Any) -> TokenRecord:
    return TokenRecord(
        name=name, keyring="default", labels={}, disabled=False, current=1, latest=1, previous_valid_s=0,
        created_at=at, updated_at=at,
    )  # fmt: skip


def version(name: str, at: Any) -> VersionRecord:
    return VersionRecord(
        token=name, version=1, stage="current", content_type="text/plain", keyring="default", data_key="k", fmt=1,
        sealed=b"sealed", created_at=at, created_by="root",
    )  # fmt: skip


class Gate:
    """A writer that holds every commit until it is opened, and that says when one has arrived."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()

    async def commit(self, entries: Any, **parts: Any) -> Any:
        self.arrived.set()
        await self.open.wait()
        return await self._writer.commit(entries, **parts)


async def test_a_process_reads_its_own_writes(cluster: Any, worker: Any) -> None:
    """After a commit the book shows the rows, signed, with nothing read from the feed."""
    async with cluster.replica() as (authority, _):
        await authority.commit([], inserts=[worker("ann"), worker("bob")])
        ann = authority.workers.get(("ann",))
        authority.verify(ann)
        assert {row.name for row in authority.workers} == {"ann", "bob"}
        assert (len(authority.workers), len(authority.grants)) == (2, 0)
        await authority.commit([], updates=[msgspec.structs.replace(ann, disabled=True, rev=2)])
        await authority.commit([], deletes=[Delete(WorkerRecord, ("bob",), 1)])
        assert authority.workers.get(("ann",)).disabled
        assert ("bob",) not in authority.workers


async def test_the_generation_tells_changes_from_repetitions(cluster: Any, news: Any, worker: Any) -> None:
    """A commit moves the generation of its own book only, and hearing of it again in the feed moves nothing."""
    async with cluster.replica() as (authority, storage):
        workers, grants = authority.workers.generation, authority.grants.generation
        await authority.commit([], inserts=[worker("ann")])
        after = authority.workers.generation
        assert after > workers
        told = await news(authority, storage)
        assert [(change.table, change.key) for change in told] == [("worker", ("ann",))]
        assert (authority.workers.generation, authority.grants.generation) == (after, grants)


async def test_what_was_committed_is_loaded_again(cluster: Any, worker: Any, grant: Any) -> None:
    """A restart finds every table as it was left."""
    async with cluster.replica() as (authority, _):
        await authority.commit([], inserts=[worker("ann", labels={"é": "ü", "a": "b"}), grant("g1"), grant("g2")])
        await authority.commit([], deletes=[Delete(type(grant("g1")), ("g1",), 1)])
        before = list(authority.workers), list(authority.grants), authority.manifests
    async with cluster.replica() as (authority, _):
        assert (list(authority.workers), list(authority.grants), authority.manifests) == before


@pytest.mark.parametrize(
    "what", ["known key", "old revision", "revision ahead", "absent", "delete old", "delete absent"]
)
async def test_a_change_that_does_not_fit_is_a_conflict(cluster: Any, worker: Any, what: str) -> None:
    """A change that assumes another state of its row changes nothing, and the error names the row."""
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[worker("ann")])
        await authority.commit([], updates=[worker("ann", rev=2)])
        changes: dict[str, dict[str, Any]] = {
            "known key": {"inserts": [worker("ann")]},
            "old revision": {"updates": [worker("ann", rev=2, disabled=True)]},
            "revision ahead": {"updates": [worker("ann", rev=4)]},
            "absent": {"updates": [worker("eve", rev=2)]},
            "delete old": {"deletes": [Delete(WorkerRecord, ("ann",), 1)]},
            "delete absent": {"deletes": [Delete(WorkerRecord, ("eve",), 1)]},
        }
        before = authority.manifests
        with pytest.raises(Conflict, match=r"'(ann|eve)' of table worker"):
            await authority.commit([], inserts=[*changes[what].pop("inserts", []), worker("new")], **changes[what])
        assert authority.manifests == before
        assert await storage.get(WorkerRecord, ("new",)) is None
        assert await authority.check() == []


async def test_a_conflict_of_another_row_leaves_the_books_alone(cluster: Any, worker: Any) -> None:
    """When a row of another kind in the same commit conflicts, no authority row of it is shown or kept."""
    async with cluster.replica() as (authority, _):
        at = worker("x").created_at
        await authority.commit([], inserts=[token("t", at)])
        with pytest.raises(Conflict):
            await authority.commit([], inserts=[worker("ann"), token("t", at)])
        assert ("ann",) not in authority.workers
        await authority.commit([], inserts=[worker("ann")])


async def test_token_rows_are_signed_and_announced(cluster: Any, news: Any, worker: Any) -> None:
    """A token's head and versions get their MACs; the feed names the head; no manifest moves."""
    async with cluster.replica() as (authority, storage):
        at, before = worker("x").created_at, authority.manifests
        await authority.commit([], inserts=[token("a/b", at), version("a/b", at)], announce=[("lease", ("l1",))])
        for kind, key in ((TokenRecord, ("a/b",)), (VersionRecord, ("a/b", 1))):
            stored = await storage.get(kind, key)
            authority.verify(stored)
            with pytest.raises(RowForged, match=r"'a/b"):
                authority.verify(msgspec.structs.replace(stored, keyring="other"))
        told = {(change.table, change.key) for change in await storage.feed(0)}
        assert told == {("lease", ("l1",)), ("token", ("a/b",))}
        assert await news(authority, storage) == []
        assert authority.manifests == before


async def test_each_changed_row_is_announced_once(cluster: Any, worker: Any) -> None:
    """The feed names every inserted, updated and deleted authority row, once, even if the caller names it too."""
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[worker("ann"), worker("bob")])
        position = await storage.position()
        await authority.commit(
            [],
            inserts=[worker("cid")],
            updates=[worker("ann", rev=2)],
            deletes=[Delete(WorkerRecord, ("bob",), 1)],
            announce=[("worker", ("ann",))],
        )
        told = sorted((change.table, change.key) for change in await storage.feed(position))
        assert told == [("worker", ("ann",)), ("worker", ("bob",)), ("worker", ("cid",))]


async def test_manifests_and_repeated_rows_are_refused(cluster: Any, worker: Any) -> None:
    """Nobody commits a manifest by hand, nor one row twice in a commit."""
    async with cluster.replica() as (authority, _):
        manifest = ManifestRecord(kind="worker", rev=2, count=0, digest=b"")
        with pytest.raises(ValueError, match="manifest"):
            await authority.commit([], updates=[manifest])
        with pytest.raises(ValueError, match="at most once"):
            await authority.commit([], inserts=[worker("ann")], deletes=[Delete(WorkerRecord, ("ann",), 1)])


async def test_commits_in_one_process_take_turns(cluster: Any, worker: Any) -> None:
    """Many commits at once all become durable, without a conflict among them."""
    async with cluster.replica() as (authority, _):
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(authority.commit([], inserts=[worker(f"w-{number}")]))
        assert len(authority.workers) == 40
        assert await authority.check() == []


async def test_waiting_for_ones_turn_has_a_bound(
    cluster: Any, plain_writer: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a commit that hangs, others are refused as unavailable after the bound, not queued for ever."""
    monkeypatch.setattr(service, "LOCK_WAIT_S", 0.02)
    async with cluster.open() as storage:
        gate = Gate(plain_writer(storage))
        authority = await cluster.load(storage, gate)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(authority.commit([], inserts=[worker("ann")]))
            await gate.arrived.wait()
            with pytest.raises(Unavailable, match="queued"):
                await authority.commit([], inserts=[worker("bob")])
            gate.open.set()
        assert first.result().position > 0
        await authority.commit([], inserts=[worker("bob")])


async def test_commits_without_authority_rows_do_not_wait(cluster: Any, plain_writer: Any, worker: Any) -> None:
    """Sealing tokens goes on while a commit of authority rows is on its way."""

    class OnlyTokens(Gate):
        async def commit(self, entries: Any, **parts: Any) -> Any:
            if any(isinstance(record, TokenRecord) for record in parts["inserts"]):
                return await self._writer.commit(entries, **parts)
            return await super().commit(entries, **parts)

    async with cluster.open() as storage:
        gate = OnlyTokens(plain_writer(storage))
        authority = await cluster.load(storage, gate)
        async with asyncio.TaskGroup() as group:
            group.create_task(authority.commit([], inserts=[worker("ann")]))
            await gate.arrived.wait()
            async with asyncio.timeout(5):
                await authority.commit([], inserts=[token("t", worker("x").created_at)])
            gate.open.set()


async def test_a_commit_whose_end_was_not_seen_is_found_again(
    cluster: Any, plain_writer: Any, news: Any, worker: Any
) -> None:
    """A change that became durable after its caller had given up is in the books after the next look at storage."""

    class Late:
        """Makes the change durable, and then does not say so, as a journal does whose deadline is over."""

        def __init__(self, writer: Any) -> None:
            self._writer = writer
            self.late = True

        async def commit(self, entries: Any, **parts: Any) -> Any:
            committed = await self._writer.commit(entries, **parts)
            if self.late:
                raise Unavailable
            return committed

    async with cluster.open() as storage:
        writer = Late(plain_writer(storage))
        authority = await cluster.load(storage, writer)
        with pytest.raises(Unavailable):
            await authority.commit([], inserts=[worker("ann")])
        assert ("ann",) not in authority.workers
        writer.late = False
        await authority.commit([], inserts=[worker("bob")])
        assert {row.name for row in authority.workers} == {"ann", "bob"}
        await news(authority, storage)
        assert await authority.check() == []


async def test_cancelling_a_commit_frees_the_turn(cluster: Any, plain_writer: Any, worker: Any) -> None:
    """A caller cancelled while its commit hangs leaves the books as they were, and the next one goes through."""
    async with cluster.open() as storage:
        gate = Gate(plain_writer(storage))
        authority = await cluster.load(storage, gate)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(authority.commit([], inserts=[worker("ann")]))
            await gate.arrived.wait()
            first.cancel()
        assert first.cancelled()
        assert len(authority.workers) == 0
        gate.open.set()
        await authority.commit([], inserts=[worker("ann")])
        assert len(authority.workers) == 1


async def test_iterating_a_book_shows_one_moment(cluster: Any, worker: Any) -> None:
    """A commit in the middle of an iteration neither breaks it nor shows in it."""
    async with cluster.replica() as (authority, _):
        await authority.commit([], inserts=[worker("ann"), worker("bob")])
        rows = iter(authority.workers)
        seen = {next(rows).name}
        await authority.commit([], inserts=[worker("cid")])
        assert seen | {row.name for row in rows} == {"ann", "bob"}
