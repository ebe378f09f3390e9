"""Laws of due and prune: what time brings up, in its order, to the microsecond."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.conformance.opener import Opener
from storage.conformance.samples import at, following, lease
from storage.port import Commit
from storage.records import LeaseRecord

TICK = timedelta(microseconds=1)


class TimingLaws:
    """due finds what is due, prune deletes what is over, and neither touches anything else."""

    async def test_due_comes_earliest_first(self, opener: Opener) -> None:
        """Due records come in the order of their instant, whatever their keys."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(n, due_at=at(100 - n)) for n in range(10)]))
            found = await storage.due(LeaseRecord, "due_at", at(200))
            assert [record.due_at for record in found] == [at(91 + n) for n in range(10)]

    async def test_due_ties_go_by_key(self, opener: Opener) -> None:
        """Records due at one instant come in the order of their keys."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(n, due_at=at(5)) for n in (3, 1, 4, 0, 2)]))
            found = await storage.due(LeaseRecord, "due_at", at(5))
            assert [record.key for record in found] == [lease(n).key for n in range(5)]

    async def test_due_includes_the_instant_itself(self, opener: Opener) -> None:
        """What is due at exactly the instant is due; one microsecond later is not."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1, due_at=at(5)), lease(2, due_at=at(5) + TICK)]))
            assert await storage.due(LeaseRecord, "due_at", at(5) - TICK) == []
            assert [record.key for record in await storage.due(LeaseRecord, "due_at", at(5))] == [lease(1).key]

    async def test_what_has_no_instant_is_never_due(self, opener: Opener) -> None:
        """None means never."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1, due_at=None), lease(2)]))
            found = await storage.due(LeaseRecord, "due_at", at(10**9))
            assert [record.key for record in found] == [lease(2).key]

    async def test_due_keeps_to_its_limit(self, opener: Opener) -> None:
        """At most `limit` records come, the earliest."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(n) for n in range(20)]))
            found = await storage.due(LeaseRecord, "due_at", at(100), 3)
            assert [record.key for record in found] == [lease(n).key for n in range(3)]

    async def test_due_follows_updates(self, opener: Opener) -> None:
        """A record that was put off or cleared is no longer due at its old instant."""
        async with opener() as storage:
            leases = [lease(n) for n in range(3)]
            await storage.commit(Commit(inserts=leases))
            await storage.commit(
                Commit(updates=[following(leases[0], due_at=at(50)), following(leases[1], due_at=None)])
            )
            assert [record.key for record in await storage.due(LeaseRecord, "due_at", at(49))] == [leases[2].key]
            assert [record.key for record in await storage.due(LeaseRecord, "due_at", at(50))] == [
                leases[2].key,
                leases[0].key,
            ]

    async def test_prune_deletes_strictly_before(self, opener: Opener) -> None:
        """prune deletes what was due before the instant, not at it, says how many, and spares what is never due."""
        async with opener() as storage:
            leases = [lease(n, prune_at=at(n)) for n in range(5)]
            await storage.commit(Commit(inserts=[*leases, lease(9, prune_at=None)]))
            assert await storage.prune(LeaseRecord, "prune_at", at(3)) == 3
            assert await storage.prune(LeaseRecord, "prune_at", at(3)) == 0
            left = await storage.select(LeaseRecord)
            assert [record.key for record in left.records] == [lease(n).key for n in (3, 4, 9)]

    async def test_prune_keeps_to_its_limit(self, opener: Opener) -> None:
        """At most `limit` records go at once, the earliest first."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(n, prune_at=at(100 - n)) for n in range(5)]))
            assert await storage.prune(LeaseRecord, "prune_at", at(1000), 2) == 2
            left = await storage.select(LeaseRecord)
            assert [record.key for record in left.records] == [lease(n).key for n in range(3)]

    async def test_only_declared_columns_can_be_due(self, opener: Opener) -> None:
        """Asking by another column is the caller's mistake, and deletes nothing."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1)]))
            with pytest.raises(KeyError):
                await storage.due(LeaseRecord, "granted_at", at(100))
            with pytest.raises(KeyError):
                await storage.prune(LeaseRecord, "granted_at", at(100))
            assert await storage.get(LeaseRecord, lease(1).key) is not None
