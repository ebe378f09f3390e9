"""Token heads in memory: a change that happens while one is read never leaves the old one behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.errors import Tampered
from broker.leases.heads import Heads
from storage.memory import open_memory
from storage.port import Commit
from storage.records import TokenRecord, VersionRecord
from storage.table import Key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def token(name: str, current: int, **changed: Any) -> TokenRecord:
    fields = {
        "name": name,
        "keyring": "default",
        "labels": {},
        "disabled": False,
        "current": current,
        "latest": max(current, 1),
        "previous_valid_s": 0,
        "created_at": NOW,
        "updated_at": NOW,
        **changed,
    }
    return TokenRecord(**fields)


def version(name: str, number: int) -> VersionRecord:
    return VersionRecord(
        token=name,
        version=number,
        stage="current",
        content_type="text/plain",
        keyring="default",
        data_key="k",
        fmt=1,
        sealed=b"sealed",
        created_at=NOW,
        created_by="root",
    )


class Paused:
    """A real storage whose answers about tokens can be held back after they were read."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.holds: list[asyncio.Event] = []
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def get_many(self, kind: Any, keys: Sequence[Key]) -> Any:
        found = await self._storage.get_many(kind, keys)
        if kind is TokenRecord:
            self.reads += 1
            if self.holds:
                await self.holds.pop(0).wait()
        return found

    async def rotate(self, name: str, number: int) -> None:
        """Make another version current, as an operator does."""
        await self._storage.commit(Commit(inserts=[version(name, number)], updates=[token(name, number, rev=number)]))


@pytest.fixture
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Paused]:
    """Token a at version 1, token off, disabled, and token none, without a current version; in memory."""
    async with open_memory(f"memory:{request.node.name}") as opened:
        rows = [token("a", 1), version("a", 1), token("off", 1, disabled=True), version("off", 1), token("none", 0)]
        await opened.commit(Commit(inserts=rows))
        yield Paused(opened)


def heads_of(storage: Any, bound: int = 100, verify: Any = lambda record: None, **bounds: int) -> Heads:
    return Heads(storage=storage, verify=verify, bound=bound, **bounds)


async def add(storage: Any, *names: str) -> None:
    """Tokens at version 1."""
    await storage.commit(Commit(inserts=[row for name in names for row in (token(name, 1), version(name, 1))]))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def current(heads: Heads, name: str = "a") -> int | None:
    """The version that `known` would hand out; None where it would have to be asked for."""
    head = heads.known.get(name)
    return None if head is None or head.version is None else head.version.version


async def test_a_head_is_read_once_and_kept(storage: Paused) -> None:
    """What a token's current version is, that it is disabled, has none, or does not exist."""
    heads = heads_of(storage)
    await heads.load(["a", "off", "none", "absent"])
    assert current(heads) == 1
    known = heads.known
    assert known["off"] is not None
    assert known["off"].leasable("current", "w") is None
    assert known["none"] is not None
    assert known["none"].leasable("current", "w") is None
    assert known["absent"] is None


async def test_a_change_during_a_read_drops_what_was_read(storage: Paused) -> None:
    """The old head is not kept; the next read brings the new one."""
    heads = heads_of(storage)
    storage.holds = [hold := asyncio.Event()]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(heads.load(["a"]))
        await settle()
        await storage.rotate("a", 2)
        heads.forget(["a"])
        hold.set()
    assert "a" not in heads.known
    await heads.load(["a"])
    assert current(heads) == 2


async def test_a_second_read_does_not_hide_a_change_from_the_first(storage: Paused) -> None:
    """First read begun, change, second read begun and ended, first read ended: the old head must not win."""
    heads = heads_of(storage)
    storage.holds = [first := asyncio.Event(), second := asyncio.Event()]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(heads.load(["a"]))
        await settle()
        await storage.rotate("a", 2)
        heads.forget(["a"])
        tasks.create_task(heads.load(["a"]))
        await settle()
        second.set()
        await settle()
        first.set()
    assert current(heads) in {2, None}


async def test_a_read_that_ends_first_does_not_hide_a_change_from_the_second(storage: Paused) -> None:
    """Both reads begun, the first ended, change, the second ended: what it read is old and must not stay."""
    heads = heads_of(storage)
    storage.holds = [first := asyncio.Event(), second := asyncio.Event()]
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(heads.load(["a"]))
            await settle()
        first.set()
        await settle()
        await storage.rotate("a", 2)
        heads.forget(["a"])
        second.set()
    assert current(heads) in {2, None}


async def test_a_cancelled_read_leaves_nothing_behind(storage: Paused) -> None:
    """The next read is a fresh one, and a later change is not mistaken for one that concerns it."""
    heads = heads_of(storage)
    storage.holds = [asyncio.Event()]
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(heads.load(["a"]))
        await settle()
        reading.cancel()
    await heads.load(["a"])
    assert current(heads) == 1


async def test_heads_are_bounded_and_the_longest_kept_leave_first(storage: Paused) -> None:
    """However many tokens are asked for, so many are kept."""
    await add(storage, *(f"t{number}" for number in range(50)))
    heads = heads_of(storage, bound=3)
    for number in range(50):
        await heads.load([f"t{number}"])
    assert list(heads.known) == ["t47", "t48", "t49"]


async def test_sealed_values_are_bounded_together(storage: Paused) -> None:
    """Few large values take as much memory as many small ones, and no more."""
    await add(storage, *(f"t{number}" for number in range(9)))
    heads = heads_of(storage, bytes_max=4 * len(b"sealed"))
    await heads.load([f"t{number}" for number in range(9)])
    assert list(heads.known) == ["t5", "t6", "t7", "t8"]
    heads.forget(["t5", "t6"])
    await heads.load(["a", "off"])
    assert set(heads.known) == {"t7", "t8", "a", "off"}
    await heads.load(["a", "off"])
    assert len(heads.known) == 4


async def test_guessed_names_push_out_no_token(storage: Paused) -> None:
    """A worker that asks for a thousand names that do not exist leaves what others lease in memory."""
    heads = heads_of(storage, bound=16)
    await heads.load(["a", "off"])
    for number in range(1000):
        await heads.load([f"guess{number}"])
    assert set(heads.known) == {"a", "off", "guess998", "guess999"}


async def test_a_name_that_becomes_a_token_counts_as_one(storage: Paused) -> None:
    """What was absent when it was first asked for is not dropped as a guess afterwards."""
    heads = heads_of(storage, bound=16)
    await heads.load(["t1"])
    await add(storage, "t1")
    heads.forget(["t1"])
    await heads.load(["t1"])
    for number in range(20):
        await heads.load([f"guess{number}"])
    assert current(heads, "t1") == 1


async def test_a_forged_row_is_not_kept(storage: Paused) -> None:
    """It raises, and the name stays unknown."""

    def refuse(record: Any) -> None:
        raise Tampered(f"{record.key} is forged")

    heads = heads_of(storage, verify=refuse)
    with pytest.raises(Tampered):
        await heads.load(["a"])
    assert heads.known == {}


async def test_a_current_version_that_is_missing_is_tampering(storage: Paused) -> None:
    """A token that names a version that the database does not have is not served as if it had none."""
    await storage.commit(Commit(updates=[token("a", 7, rev=2)]))
    with pytest.raises(Tampered):
        await heads_of(storage).load(["a"])


async def test_warming_reads_all_there_is_up_to_the_bound(storage: Paused) -> None:
    """Reading ahead stops at the last token, or when memory is full."""

    async def pause() -> None:
        await asyncio.sleep(0)

    heads = heads_of(storage)
    await heads.warm(pause=pause)
    assert set(heads.known) == {"a", "off", "none"}
    small = heads_of(storage, bound=2)
    await small.warm(pause=pause)
    assert len(small.known) == 2


async def test_both_live_versions_are_kept_and_counted(storage: Paused) -> None:
    """The previous version is there for leases of it, and its bytes are held against the bound."""
    both = [token("both", 2, previous=1), version("both", 1), version("both", 2)]
    await storage.commit(Commit(inserts=both))
    heads = heads_of(storage)
    await heads.load(["both"])
    head = heads.known["both"]
    assert head is not None
    found = [head.leasable(stage, "w") for stage in ("current", "previous")]
    assert [each and each.version for each in found] == [2, 1]
    assert heads._bytes == 2 * len(b"sealed")


async def test_a_missing_previous_version_is_tampering(storage: Paused) -> None:
    """A row that names a version that is not there was not written so by this cluster."""
    await storage.commit(Commit(inserts=[token("both", 2, previous=1), version("both", 2)]))
    with pytest.raises(Tampered, match="previous version 1 is missing"):
        await heads_of(storage).load(["both"])
