"""Laws of commit: all or nothing, in order, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from storage.conformance.opener import Opener
from storage.conformance.samples import following, lease, sample
from storage.errors import Conflict, OutOfBounds
from storage.port import COMMIT_MAX, Amended, AuditAppend, Commit, Delete, Expect, Storage
from storage.records import AuditBlockRecord, LeaseRecord, TokenRecord

_LOG = 7


class CommitLaws:
    """A commit happens whole or not at all."""

    async def test_every_part_of_a_commit_happens(self, opener: Opener) -> None:
        """Inserts, updates, deletes, audit entries and announcements of one commit are all there afterwards."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(2)]))
            done = await storage.commit(
                Commit(
                    inserts=[lease(3), sample(TokenRecord, 1)],
                    updates=[following(lease(1), reason="renewed")],
                    deletes=[Delete(LeaseRecord, lease(2).key, 1)],
                    audit=AuditAppend(_LOG, (b"one", b"two")),
                    announce=[("lease", lease(1).key)],
                )
            )
            found = await storage.select(LeaseRecord)
            assert found.records == [following(lease(1), reason="renewed"), lease(3)]
            assert await storage.get(TokenRecord, sample(TokenRecord, 1).key) is not None
            assert done.first_seq == 0
            assert [change.position for change in await storage.feed(0)] == [done.position]

    async def test_an_insert_of_an_existing_key_changes_nothing(self, opener: Opener) -> None:
        """Conflict, and neither the commit's other parts nor the record that was there are touched."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            async with _unchanged(storage):
                with _conflict():
                    await storage.commit(_with_everything(inserts=[lease(2), lease(1, reason="other")]))

    async def test_an_amended_record_is_stored_whole(self, opener: Opener) -> None:
        """Amendments of the same and of different fields, and whole records, are stored as their records say."""
        async with opener() as storage:
            before = [lease(number) for number in range(8)]
            await storage.commit(Commit(inserts=before))
            changes: list[dict[str, object]] = [
                {"reason": "a"},
                {"version": 9},
                {"due_at": None},
                {"reason": "", "ttl_s": 1},
            ]
            after = [following(record, **changes[at % 4]) for at, record in enumerate(before)]
            amended = [Amended(old, new) for old, new in zip(before[:6], after[:6], strict=True)]
            await storage.commit(Commit(updates=[*amended, *after[6:]]))
            assert (await storage.select(LeaseRecord)).records == after
            alike: list[dict[str, object]] = [{"version": 20 + at} for at in range(8)]
            for step in (alike, changes * 2):
                before, after = after, [following(record, **change) for record, change in zip(after, step, strict=True)]
                await storage.commit(Commit(updates=list(map(Amended, before, after))))
                assert (await storage.select(LeaseRecord)).records == after

    async def test_an_amendment_from_another_revision_changes_nothing(self, opener: Opener) -> None:
        """Conflict, as for whole records; also of two that amend the same one, the second changes nothing."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            second, third = following(lease(1), reason="second"), following(following(lease(1)), reason="third")
            async with _unchanged(storage):
                for amended in (Amended(second, third), Amended(lease(99), following(lease(99)))):
                    with _conflict():
                        await storage.commit(_with_everything(updates=[amended]))
            other = following(lease(1), version=7)
            outcomes = await asyncio.gather(
                storage.commit(Commit(updates=[Amended(lease(1), second)])),
                storage.commit(Commit(updates=[Amended(lease(1), other)])),
                return_exceptions=True,
            )
            assert isinstance(outcomes[1], Conflict)
            assert await storage.get(LeaseRecord, lease(1).key) == second

    async def test_an_amendment_goes_from_one_revision_to_the_next(self, opener: Opener) -> None:
        """OutOfBounds when it leaves one out, stays or goes back, or is of another record: what it did not write would
        be taken for written.
        """
        async with opener() as storage:
            first, second = lease(1), following(lease(1), reason="second")
            third = following(second, reason="third", version=7)
            await storage.commit(Commit(inserts=[first, lease(5)]))
            await storage.commit(Commit(updates=[second]))
            wrong = [(first, third), (third, third), (third, second), (lease(2), second), (following(lease(2)), third)]
            async with _unchanged(storage):
                for before, after in wrong:
                    with pytest.raises(OutOfBounds):
                        await storage.commit(_with_everything(updates=[Amended(before, after)]))

    async def test_an_amendment_behind_another_write_loses_nothing_of_it(self, opener: Opener) -> None:
        """However many amend what they read before, each its own part, at once or later: one is stored, all others are
        told, and of what relies on it nothing is stored either.
        """
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            parts: list[dict[str, object]] = [{"reason": "a"}, {"version": 7}, {"ttl_s": 9}, {"due_at": None}]
            after = [following(lease(1), **part) for part in parts]
            stale = [Commit(updates=[Amended(lease(1), each)]) for each in after]
            outcomes = await asyncio.gather(*map(storage.commit, stale), return_exceptions=True)
            assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False, True, True, True]
            amended = Amended(lease(5), following(lease(5), reason="relies"))
            relying = Commit(updates=[amended], expects=[Expect(LeaseRecord, lease(1).key, 1)])
            for commit in (*stale, relying):
                with _conflict():
                    await storage.commit(commit)
            assert (await storage.select(LeaseRecord)).records == [after[0], lease(5)]

    async def test_a_commit_amends_a_record_once(self, opener: Opener) -> None:
        """OutOfBounds when one commit amends two parts of one record, or amends it and writes it whole."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            reason = Amended(lease(1), following(lease(1), reason="second"))
            async with _unchanged(storage):
                for again in (Amended(lease(1), following(lease(1), version=7)), following(lease(1))):
                    with pytest.raises(OutOfBounds):
                        await storage.commit(_with_everything(updates=[reason, again]))

    async def test_an_update_from_another_revision_changes_nothing(self, opener: Opener) -> None:
        """Conflict when the stored revision is older or newer than the one the update follows, or none is stored."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            await storage.commit(Commit(updates=[following(lease(1))]))
            third = following(following(lease(1)))
            wrong = [following(lease(1)), following(third), following(lease(99)), lease(1)]
            async with _unchanged(storage):
                for record in wrong:
                    with _conflict():
                        await storage.commit(_with_everything(updates=[record]))

    async def test_a_delete_of_another_revision_changes_nothing(self, opener: Opener) -> None:
        """Conflict when another revision is stored, or none."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            async with _unchanged(storage):
                for delete in (Delete(LeaseRecord, lease(1).key, 2), Delete(LeaseRecord, lease(9).key, 1)):
                    with _conflict():
                        await storage.commit(_with_everything(deletes=[delete]))

    async def test_a_commit_needs_what_it_relies_on(self, opener: Opener) -> None:
        """Conflict when an expected record is at another revision or absent; a right expectation changes nothing."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            async with _unchanged(storage):
                for key, rev in ((lease(1).key, 2), (lease(9).key, 1), (lease(9).key, 0)):
                    with _conflict():
                        await storage.commit(_with_everything(expects=[Expect(LeaseRecord, key, rev)]))
            await storage.commit(_with_everything(expects=[Expect(LeaseRecord, lease(1).key, 1)]))
            assert await storage.get(LeaseRecord, lease(1).key) == lease(1)

    async def test_what_is_relied_on_holds_at_the_moment_of_writing(self, opener: Opener) -> None:
        """Of commits on their way together, those behind the one that changes what they rely on lose, no others."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(0)]))
            relied = Expect(LeaseRecord, lease(0).key, 1)
            outcomes = await asyncio.gather(
                *(storage.commit(Commit(inserts=[lease(n)], expects=[relied])) for n in range(1, 5)),
                storage.commit(Commit(updates=[following(lease(0))])),
                *(storage.commit(Commit(inserts=[lease(n)], expects=[relied])) for n in range(5, 9)),
                return_exceptions=True,
            )
            assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False] * 5 + [True] * 4
            found = await storage.select(LeaseRecord)
            assert [record.key for record in found.records] == [lease(n).key for n in range(5)]

    async def test_one_wrong_update_among_many_undoes_all(self, opener: Opener) -> None:
        """The last of a hundred updates loses: none of them happens."""
        async with opener() as storage:
            leases = [lease(n) for n in range(100)]
            await storage.commit(Commit(inserts=[*leases, lease(105)]))
            updates = [following(record, reason="renewed") for record in leases]
            updates[-1] = following(updates[-1])
            async with _unchanged(storage):
                with _conflict():
                    await storage.commit(Commit(updates=updates))

    async def test_a_commit_names_a_record_once(self, opener: Opener) -> None:
        """Writing one record twice in a commit is OutOfBounds, in whichever way; nothing is changed."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1), lease(5)]))
            second = following(lease(1))
            gone = Delete(LeaseRecord, lease(1).key, 1)
            twice = [
                Commit(updates=[second, following(second)]),
                Commit(updates=[second], deletes=[gone]),
                Commit(deletes=[gone, gone]),
                Commit(inserts=[lease(2)], updates=[following(lease(2))]),
                Commit(inserts=[lease(2), lease(2)]),
            ]
            async with _unchanged(storage):
                for commit in twice:
                    with pytest.raises(OutOfBounds):
                        await storage.commit(commit)

    async def test_commits_of_one_caller_apply_in_order(self, opener: Opener) -> None:
        """Commits that build on one another succeed when they are issued in order without waiting."""
        async with opener() as storage:
            steps = [lease(1)]
            for turn in range(20):
                steps.append(following(steps[-1], reason=str(turn)))
            commits = [
                Commit(inserts=steps[:1]),
                *(Commit(updates=[step]) for step in steps[1:]),
                Commit(deletes=[Delete(LeaseRecord, steps[-1].key, steps[-1].rev)]),
                Commit(inserts=[lease(1, reason="again")]),
            ]
            await asyncio.gather(*(storage.commit(commit) for commit in commits))
            assert await storage.get(LeaseRecord, lease(1).key) == lease(1, reason="again")

    async def test_a_commit_before_what_it_needs_is_a_conflict(self, opener: Opener) -> None:
        """An update issued before the insert that it follows loses, even if both are on their way together."""
        async with opener() as storage:
            outcomes = await asyncio.gather(
                storage.commit(Commit(updates=[following(lease(1))])),
                storage.commit(Commit(inserts=[lease(1)])),
                return_exceptions=True,
            )
            assert isinstance(outcomes[0], Conflict)
            assert await storage.get(LeaseRecord, lease(1).key) == lease(1)

    async def test_a_conflict_harms_no_other_commit(self, opener: Opener) -> None:
        """Of commits on their way together, exactly those that conflict fail; the others are whole."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(n) for n in range(0, 50, 5)]))
            outcomes = await asyncio.gather(
                *(storage.commit(Commit(inserts=[lease(100 + n), lease(n)])) for n in range(50)),
                return_exceptions=True,
            )
            lost = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Conflict)}
            assert lost == set(range(0, 50, 5))
            found = {record.key for record in (await storage.select(LeaseRecord)).records}
            assert found == {lease(n).key for n in (*range(50), *(100 + n for n in range(50) if n not in lost))}

    async def test_a_refused_value_harms_no_other_commit(self, opener: Opener) -> None:
        """Of commits on their way together, exactly the one with a value that cannot be kept fails."""
        async with opener() as storage:
            outcomes = await asyncio.gather(
                *(storage.commit(Commit(inserts=[lease(n, reason="\udcff" if n == 3 else "")])) for n in range(6)),
                return_exceptions=True,
            )
            assert [isinstance(outcome, OutOfBounds) for outcome in outcomes] == [n == 3 for n in range(6)]
            found = await storage.select(LeaseRecord)
            assert [record.key for record in found.records] == [lease(n).key for n in range(6) if n != 3]

    async def test_a_commit_is_seen_whole_or_not(self, opener: Opener) -> None:
        """A reader sees records that change together change together."""
        async with opener() as storage, opener() as reading:
            pair = [lease(1, reason="0"), lease(2, reason="0")]
            await storage.commit(Commit(inserts=pair))
            keys = [record.key for record in pair]
            torn = []
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(_rewrite(storage, pair, turns=40))
                while not writing.done():
                    found = await reading.get_many(LeaseRecord, keys)
                    page = await reading.select(LeaseRecord)
                    torn += [
                        records
                        for records in (list(found.values()), page.records)
                        if len({record.reason for record in records}) != 1
                    ]
            assert torn == []

    async def test_an_acknowledged_commit_is_seen_by_all(self, opener: Opener) -> None:
        """After commit returned, every handle reads what it wrote."""
        async with opener() as storage, opener() as other:
            for turn in range(20):
                await storage.commit(Commit(inserts=[lease(turn)]))
                assert await storage.get(LeaseRecord, lease(turn).key) is not None
                assert await other.get(LeaseRecord, lease(turn).key) is not None

    async def test_a_commit_may_be_large_but_bounded(self, opener: Opener) -> None:
        """COMMIT_MAX items of all sorts together are accepted; one more is OutOfBounds and changes nothing."""
        async with opener() as storage:
            entries = (b"x",) * (COMMIT_MAX - 3)
            most = Commit(
                inserts=[lease(1), lease(2)], audit=AuditAppend(_LOG, entries), announce=[("lease", lease(1).key)]
            )
            await storage.commit(most)
            over = Commit(
                inserts=[lease(3), lease(4), lease(5)],
                audit=AuditAppend(_LOG, entries),
                announce=[("lease", lease(3).key)],
            )
            async with _unchanged(storage):
                with pytest.raises(OutOfBounds):
                    await storage.commit(over)

    async def test_many_records_fit_in_one_commit(self, opener: Opener) -> None:
        """Thousands of inserts, updates and deletes each go through in one commit."""
        count = 2_777  # no round number, whatever the batches
        async with opener() as storage:
            leases = [lease(n) for n in range(count)]
            await storage.commit(Commit(inserts=leases))
            leases = [following(record, reason="renewed") for record in leases]
            await storage.commit(Commit(updates=leases))
            last = await storage.select(LeaseRecord, descending=True, limit=1)
            assert last.records == [leases[-1]]
            await storage.commit(Commit(deletes=[Delete(LeaseRecord, r.key, r.rev) for r in leases[1:]]))
            assert (await storage.select(LeaseRecord)).records == leases[:1]

    async def test_an_empty_commit_is_fine(self, opener: Opener) -> None:
        """A commit of nothing announces nothing and numbers nothing."""
        async with opener() as storage:
            assert await storage.commit(Commit()) == (0, -1)


def _with_everything(
    *,
    inserts: list[LeaseRecord] | None = None,
    updates: Sequence[LeaseRecord | Amended] | None = None,
    deletes: list[Delete] | None = None,
    expects: list[Expect] | None = None,
) -> Commit:
    """A commit with something harmless of every sort, beside what it is given."""
    return Commit(
        inserts=[lease(50), *(inserts or [])],
        updates=[following(lease(5), reason="changed"), *(updates or [])],
        deletes=deletes or [],
        expects=expects or [],
        audit=AuditAppend(_LOG, (b"entry",)),
        announce=[("lease", lease(50).key)],
    )


class _unchanged:  # noqa: N801 - reads as a phrase after `async with`
    """Assert that what the storage holds is the same before and after."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def __aenter__(self) -> None:
        self._before = await self._everything()

    async def __aexit__(self, *failure: object) -> None:
        if failure[0] is None:
            assert await self._everything() == self._before

    async def _everything(self) -> tuple[object, ...]:
        leases = await self._storage.select(LeaseRecord)
        blocks = await self._storage.select(AuditBlockRecord)
        return leases.records, blocks.records, await self._storage.feed(0), await self._storage.position()


@contextmanager
def _conflict() -> Iterator[None]:
    with pytest.raises(Conflict):
        yield


async def _rewrite(storage: Storage, records: list[LeaseRecord], turns: int) -> None:
    for turn in range(1, turns + 1):
        records = [following(record, reason=str(turn)) for record in records]
        await storage.commit(Commit(updates=records))
