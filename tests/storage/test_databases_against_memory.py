"""Databases and memory answer alike: random commits, some together, against both, and everything compared."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.catalog import open_storage
from storage.conformance.samples import at, lease, sample
from storage.errors import StorageError
from storage.memory import open_memory
from storage.port import AuditAppend, Commit, Delete, Storage
from storage.records import AuditBlockRecord, LeaseRecord, VersionRecord
from storage.table import Record

numbers = st.integers(0, 5)
revisions = st.integers(1, 4)
instants = st.none() | st.integers(0, 6).map(at)


@st.composite
def leases(draw: st.DrawFn, rev: st.SearchStrategy[int]) -> Record:
    return lease(
        draw(numbers),
        rev=draw(rev),
        due_at=draw(instants),
        prune_at=draw(instants),
        reason=draw(st.text("a\0é", max_size=2)),
    )


@st.composite
def versions(draw: st.DrawFn, rev: st.SearchStrategy[int]) -> Record:
    return sample(
        VersionRecord,
        1,
        rev=draw(rev),
        token=f"t{draw(st.integers(0, 1))}",
        version=draw(numbers),
        data_key=f"k{draw(st.integers(0, 2))}",
    )


def records(rev: st.SearchStrategy[int]) -> st.SearchStrategy[Record]:
    return leases(rev) | versions(rev)


deletes = records(revisions).map(lambda record: Delete(type(record), record.key, record.rev))
appends = st.none() | st.builds(
    AuditAppend, st.integers(0, 1), st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)
)
lines = st.tuples(st.sampled_from(["lease", "version"]), st.tuples(numbers))
commits = st.builds(
    Commit,
    inserts=st.lists(records(st.just(1)), max_size=4),
    updates=st.lists(records(st.integers(2, 4)), max_size=3),
    deletes=st.lists(deletes, max_size=1),
    audit=appends,
    announce=st.lists(lines, max_size=2),
)
steps = st.one_of(
    st.lists(commits, min_size=1, max_size=5),
    st.tuples(st.just("prune"), st.integers(0, 7), st.integers(1, 3)),
    st.tuples(st.just("prune_feed"), st.integers(0, 9)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=8))
def test_sqlite_and_memory_answer_alike(story: list[Any]) -> None:
    """After every step of any story, outcomes and everything that can be asked are equal."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(f"sqlite:///{folder}/broker.db", story))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=st.lists(steps, max_size=8))
def test_postgresql_and_memory_answer_alike(postgres: Any, story: list[Any]) -> None:
    """After every step of any story, outcomes and everything that can be asked are equal."""
    asyncio.run(_compare(postgres.url(postgres.create()), story))


async def _compare(url: str, story: list[Any]) -> None:
    async with open_storage(url) as one, open_memory() as two:
        for step in story:
            assert await _do(one, step) == await _do(two, step), step
            assert await _everything(one) == await _everything(two), step


async def _do(storage: Storage, step: Any) -> Any:
    match step:
        case ("prune", seconds, limit):
            return await storage.prune(LeaseRecord, "prune_at", at(seconds), limit)
        case ("prune_feed", position):
            return await storage.prune_feed(position)
    outcomes = await asyncio.gather(*(storage.commit(commit) for commit in step), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, (tuple, StorageError)), outcome
    return [type(outcome) if isinstance(outcome, StorageError) else outcome for outcome in outcomes]


async def _everything(storage: Storage) -> list[Any]:
    keys = [lease(n).key for n in range(6)]
    return [
        await storage.get_many(LeaseRecord, keys),
        await storage.select(LeaseRecord, limit=3),
        await storage.select(LeaseRecord, where={"reason": "", "due_at": None}, limit=2),
        await storage.select(LeaseRecord, after=keys[2], descending=True, limit=2),
        await storage.select(VersionRecord, prefix=("t1",), limit=2),
        await storage.select(VersionRecord, index="data_key", after=("k0",), limit=4),
        await storage.select(VersionRecord, index="data_key", prefix=("k1",), descending=True, limit=4),
        await storage.select(AuditBlockRecord),
        await storage.due(LeaseRecord, "due_at", at(3), 2),
        await storage.feed(1, 5),
        await storage.position(),
    ]
