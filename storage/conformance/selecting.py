"""Laws of select: order, choice and paging."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from storage.conformance.opener import Opener
from storage.conformance.samples import following, lease, sample
from storage.errors import OutOfBounds
from storage.port import COUNT_MAX, PAGE_MAX, Commit, Delete, Storage
from storage.records import GrantRecord, LeaseRecord, TokenRecord, VersionRecord
from storage.table import Key, R

NAMES = ("", "A", "B", "a", "a-b", "a.b", "a/b", "aa", "b", "é", "\uffff", "\U0001f71a")
"""In the order of their code points, which is neither that of UTF-16 nor of any language."""


class SelectLaws:
    """Pages come in a declared order, hold what was asked for, and neither miss nor repeat a record."""

    async def test_keys_order_by_code_point(self, opener: Opener) -> None:
        """Text orders by code point, not by the rules of a language, and empty text comes first."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[sample(TokenRecord, 1, name=name) for name in reversed(NAMES)]))
            page = await storage.select(TokenRecord)
            assert [token.name for token in page.records] == list(NAMES)

    async def test_integers_order_by_value(self, opener: Opener) -> None:
        """Integer columns order as numbers, negative ones first."""
        numbers = [-(2**63), -10, -9, 0, 9, 10, 100, 2**63 - 1]
        async with opener() as storage:
            versions = [sample(VersionRecord, 1, version=number) for number in reversed(numbers)]
            await storage.commit(Commit(inserts=versions))
            page = await storage.select(VersionRecord)
            assert [record.version for record in page.records] == numbers

    async def test_descending_is_the_reverse(self, opener: Opener) -> None:
        """descending answers the same records backwards, page by page."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=_versions(3, 4)))
            forwards = [r async for r in _walk(storage, VersionRecord, limit=5)]
            backwards = [r async for r in _walk(storage, VersionRecord, limit=5, descending=True)]
            assert len(forwards) == 12
            assert backwards == forwards[::-1]

    async def test_an_index_orders_by_its_columns_then_the_key(self, opener: Opener) -> None:
        """Records with equal index columns follow one another in the order of their keys."""
        async with opener() as storage:
            grants = [sample(GrantRecord, n, subject=f"group:{n % 2}") for n in (3, 1, 2, 5, 4)]
            await storage.commit(Commit(inserts=grants))
            page = await storage.select(GrantRecord, index="subject")
            assert [grant.key for grant in page.records] == [(f"id-{n:06d}",) for n in (2, 4, 1, 3, 5)]

    async def test_prefix_fixes_the_first_columns(self, opener: Opener) -> None:
        """Only records that equal the prefix are answered, in the order of the columns behind it."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[*_versions(3, 4), *_versions(1, 1, "t1x")]))
            page = await storage.select(VersionRecord, prefix=("t1",))
            assert [record.key for record in page.records] == [("t1", n) for n in range(4)]
            page = await storage.select(VersionRecord, prefix=("t1", 2))
            assert [record.key for record in page.records] == [("t1", 2)]

    async def test_count_counts_what_equals_the_prefix(self, opener: Opener) -> None:
        """A count is of the records that equal the prefix, in any declared order, and ends at its limit."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[*_versions(3, 4), *_versions(1, 1, "t1x")]))
            assert await storage.count(VersionRecord, prefix=("t1",), limit=COUNT_MAX) == 4
            assert await storage.count(VersionRecord, prefix=("t1",), limit=3) == 3
            assert await storage.count(VersionRecord, prefix=("none",), limit=3) == 0
            kept_under = (await storage.select(VersionRecord, limit=1)).records[0].data_key
            under = await storage.select(VersionRecord, index="data_key", prefix=(kept_under,))
            counted = await storage.count(VersionRecord, index="data_key", prefix=(kept_under,), limit=COUNT_MAX)
            assert counted == len(under.records)
            assert await storage.count(VersionRecord, limit=COUNT_MAX) == 13
            with pytest.raises(KeyError):
                await storage.count(VersionRecord, index="stage", limit=1)

    async def test_a_count_is_bounded(self, opener: Opener) -> None:
        """Fewer than one and more than COUNT_MAX are OutOfBounds."""
        async with opener() as storage:
            for limit in (0, COUNT_MAX + 1):
                with pytest.raises(OutOfBounds):
                    await storage.count(VersionRecord, limit=limit)

    async def test_prefix_and_after_together(self, opener: Opener) -> None:
        """Paging inside a prefix stays inside it, in both directions."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=_versions(3, 5)))
            for descending in (False, True):
                seen = [
                    record.version
                    async for record in _walk(storage, VersionRecord, prefix=("t1",), limit=2, descending=descending)
                ]
                assert seen == sorted(range(5), reverse=descending)

    async def test_where_chooses(self, opener: Opener) -> None:
        """where answers only records whose columns equal the values; None finds the unset; pages are still full."""
        async with opener() as storage:
            leases = [lease(n, worker=f"w{n % 3}", prune_at=None if n % 2 else lease(n).due_at) for n in range(60)]
            await storage.commit(Commit(inserts=leases))
            where: Mapping[str, str | int | None] = {"worker": "w1", "prune_at": None}
            chosen = [r for r in leases if r.worker == "w1" and r.prune_at is None]
            page = await storage.select(LeaseRecord, where=where, limit=4)
            assert page.records == chosen[:4]
            assert [r async for r in _walk(storage, LeaseRecord, where=where, limit=4)] == chosen

    async def test_after_may_be_made_by_hand(self, opener: Opener) -> None:
        """after need not name a record; with fewer columns it skips everything that begins like it."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=_versions(3, 3)))
            page = await storage.select(VersionRecord, after=("t0", 7))
            assert page.records[0].key == ("t1", 0)
            page = await storage.select(VersionRecord, after=("t1",))
            assert [record.key for record in page.records] == [("t2", n) for n in range(3)]
            page = await storage.select(VersionRecord, after=("t1",), descending=True)
            assert [record.key for record in page.records] == [("t0", n) for n in (2, 1, 0)]

    async def test_the_last_page_says_so(self, opener: Opener) -> None:
        """next is None exactly when nothing follows, also when the records fill their pages to the brim."""
        async with opener() as storage:
            assert (await storage.select(LeaseRecord)).next is None
            await storage.commit(Commit(inserts=[lease(n) for n in range(6)]))
            first = await storage.select(LeaseRecord, limit=3)
            assert first.next == first.records[-1].key
            second = await storage.select(LeaseRecord, limit=3, after=first.next)
            assert (len(second.records), second.next) == (3, None)

    async def test_paging_is_stable_under_writes(self, opener: Opener) -> None:
        """A record that exists throughout a walk is seen exactly once, whatever is inserted, updated and deleted."""
        async with opener() as storage, opener() as other:
            lasting = [lease(10 * n) for n in range(30)]
            passing = [lease(10 * n + 5) for n in range(30)]
            await storage.commit(Commit(inserts=[*lasting, *passing]))
            seen: list[Key] = []
            after: Key | None = None
            for turn in range(100):
                page = await storage.select(LeaseRecord, after=after, limit=4)
                seen += [record.key for record in page.records]
                after = page.next
                if after is None:
                    break
                await other.commit(
                    Commit(
                        inserts=[lease(10 * n + 1 + turn % 4) for n in range(turn // 4, 30, 7) if turn % 5 == 0],
                        updates=[following(lasting[turn], reason="later")] if turn < 30 else [],
                        deletes=[Delete(LeaseRecord, passing[29 - turn].key, 1)] if turn < 30 else [],
                    )
                )
            assert after is None
            assert sorted(set(seen)) == seen
            assert {record.key for record in lasting} <= set(seen)

    async def test_an_unknown_order_or_column_is_a_key_error(self, opener: Opener) -> None:
        """Asking for an index or column that is not declared is the caller's mistake, and says so."""
        async with opener() as storage:
            with pytest.raises(KeyError):
                await storage.select(LeaseRecord, index="token")
            with pytest.raises(KeyError):
                await storage.select(LeaseRecord, where={"colour": "red"})

    async def test_pages_are_bounded(self, opener: Opener) -> None:
        """A limit below 1 or above PAGE_MAX is OutOfBounds, wherever there is one."""
        async with opener() as storage:
            for limit in (0, -1, PAGE_MAX + 1):
                with pytest.raises(OutOfBounds):
                    await storage.select(LeaseRecord, limit=limit)
                with pytest.raises(OutOfBounds):
                    await storage.due(LeaseRecord, "due_at", lease(0).granted_at, limit)
                with pytest.raises(OutOfBounds):
                    await storage.prune(LeaseRecord, "prune_at", lease(0).granted_at, limit)
                with pytest.raises(OutOfBounds):
                    await storage.feed(0, limit)

    async def test_a_page_is_at_most_its_limit(self, opener: Opener) -> None:
        """PAGE_MAX records fit in one page, and the default limit is that."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(n) for n in range(PAGE_MAX + 1)]))
            page = await storage.select(LeaseRecord)
            assert len(page.records) == PAGE_MAX
            assert page.next is not None


async def _walk(
    storage: Storage,
    kind: type[R],
    *,
    limit: int,
    prefix: Key = (),
    where: Mapping[str, str | int | None] | None = None,
    descending: bool = False,
) -> AsyncIterator[R]:
    after: Key | None = None
    while True:
        page = await storage.select(kind, prefix=prefix, where=where, after=after, descending=descending, limit=limit)
        for record in page.records:
            yield record
        after = page.next
        if after is None:
            return


def _versions(tokens: int, versions: int, name: str = "t") -> list[VersionRecord]:
    return [
        sample(VersionRecord, 1, token=f"{name}{token}", version=version)
        for token in range(tokens)
        for version in range(versions)
    ]
