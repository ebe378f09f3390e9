"""Laws of the optional power `storage.port.Loading`: a database is filled whole, or is not opened.

To enrol, subclass in a test module with the fixtures `opener` (as for `StorageLaws`) and `loader`: each call of it
begins or goes on to fill the database that `opener` opens, from the source that is named.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from storage import records
from storage.conformance.opener import Opener
from storage.conformance.samples import bare, following, lease, sample
from storage.errors import Conflict, OutOfBounds, Refused, Unfinished
from storage.port import PAGE_MAX, AuditAppend, Commit, Loading
from storage.records import AuditBlockRecord, LeaseRecord, TokenRecord

Loader = Callable[[str], AbstractAsyncContextManager[Loading]]
"""Each call fills the one database of the test's opener, from the source of that name."""


class LoadingLaws:
    """What is loaded is what was there, and half of it is nothing."""

    async def test_records_of_any_revision_are_loaded_as_they_are(self, opener: Opener, loader: Loader) -> None:
        """A record of each type, at its first and at a later revision, comes back equal after the fill."""
        wanted = [following(following(sample(kind, 7))) for kind in records.ALL]
        wanted += [bare(kind, 8) for kind in records.ALL if sample(kind, 7).key != sample(kind, 8).key]
        async with loader("a") as target:
            for record in wanted:
                await target.load([record])
            await target.finish(0)
        async with opener() as storage:
            for record in wanted:
                assert await storage.get(type(record), record.key) == record

    async def test_a_loaded_record_goes_on_from_its_revision(self, opener: Opener, loader: Loader) -> None:
        """What was loaded at revision 3 is updated to 4, and no other way."""
        third = following(following(lease(1)))
        async with loader("a") as target:
            await target.load([third])
            await target.finish(0)
        async with opener() as storage:
            with pytest.raises(Conflict):
                await storage.commit(Commit(updates=[following(lease(1))]))
            await storage.commit(Commit(updates=[following(third)]))

    async def test_audit_logs_go_on_behind_what_was_loaded(self, opener: Opener, loader: Loader) -> None:
        """Blocks keep their numbers, and the next entry of each log gets the number behind its last block."""
        blocks = [
            AuditBlockRecord(log=2, seq=5, count=2, entries=b"\0\1a\0\1b"),
            AuditBlockRecord(log=2, seq=7, count=1, entries=b"\0\1c"),
            AuditBlockRecord(log=9, seq=0, count=1, entries=b"\0\1d"),
        ]
        async with loader("a") as target:
            await target.load(blocks)
            await target.finish(0)
        async with opener() as storage:
            assert (await storage.select(AuditBlockRecord)).records == blocks
            seqs = [(await storage.commit(Commit(audit=AuditAppend(log, (b"e",))))).first_seq for log in (2, 9, 4)]
        assert seqs == [8, 1, 0]

    async def test_the_feed_is_empty_and_goes_on_behind_the_position(self, opener: Opener, loader: Loader) -> None:
        """Whoever remembers a position of the source never sees a lower one, and gets what comes after it."""
        async with loader("a") as target:
            await target.load([lease(1)])
            await target.finish(41)
        async with opener() as storage:
            assert await storage.position() == 41
            assert await storage.feed(0) == []
            assert (await storage.commit(Commit(announce=[("lease", ("x",))]))).position == 42
            assert [change.position for change in await storage.feed(41)] == [42]

    async def test_a_database_that_was_not_finished_is_not_opened(self, opener: Opener, loader: Loader) -> None:
        """From the beginning of the fill to its end, also after the filler is gone, opening is Unfinished."""
        async with loader("a") as target:
            with pytest.raises(Unfinished):
                await opener().__aenter__()
            await target.load([lease(1)])
        with pytest.raises(Unfinished):
            await opener().__aenter__()
        async with loader("a") as target:
            await target.finish(0)
        async with opener() as storage:
            assert (await storage.select(LeaseRecord)).records == [lease(1)]

    async def test_a_fill_from_the_same_source_goes_on(self, loader: Loader) -> None:
        """What was loaded before is there, in the order of the key, and is not loaded twice."""
        async with loader("a") as target:
            await target.load([lease(n) for n in range(5)])
        async with loader("a") as target:
            found = await target.select(LeaseRecord, descending=True, limit=1)
            assert found.records == [lease(4)]
            with pytest.raises(Conflict):
                await target.load([lease(5), lease(4)])
            assert await target.get(LeaseRecord, lease(5).key) is None

    async def test_a_fill_from_another_source_starts_from_nothing(self, opener: Opener, loader: Loader) -> None:
        """Nothing of the first source is left, audit blocks and their numbers neither."""
        async with loader("a") as target:
            await target.load([lease(1)])
            await target.load([AuditBlockRecord(log=2, seq=0, count=1, entries=b"\0\1a")])
        async with loader("b") as target:
            assert (await target.select(LeaseRecord)).records == []
            await target.load([lease(2)])
            await target.finish(0)
        async with opener() as storage:
            assert (await storage.select(LeaseRecord)).records == [lease(2)]
            assert (await storage.commit(Commit(audit=AuditAppend(2, (b"e",))))).first_seq == 0

    async def test_a_database_with_records_is_not_filled(self, opener: Opener, loader: Loader) -> None:
        """Refused, whoever wrote them: `commit`, or a fill that has ended; and it stays as it was."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[sample(TokenRecord, 1)]))
        with pytest.raises(Refused):
            await loader("a").__aenter__()
        async with opener() as storage:
            assert (await storage.select(TokenRecord)).records == [sample(TokenRecord, 1)]

    async def test_a_database_that_was_used_is_not_filled(self, opener: Opener, loader: Loader) -> None:
        """Refused although no record is left: somebody may remember its positions."""
        async with opener() as storage:
            await storage.commit(Commit(announce=[("lease", ("x",))]))
            await storage.prune_feed(1)
        with pytest.raises(Refused):
            await loader("a").__aenter__()

    async def test_a_load_is_a_page_at_most(self, loader: Loader) -> None:
        """PAGE_MAX records are loaded at once; one more is OutOfBounds, and so is none."""
        async with loader("a") as target:
            await target.load([lease(n) for n in range(PAGE_MAX)])
            with pytest.raises(OutOfBounds):
                await target.load([lease(PAGE_MAX + n) for n in range(PAGE_MAX + 1)])
            with pytest.raises(OutOfBounds):
                await target.load([])
