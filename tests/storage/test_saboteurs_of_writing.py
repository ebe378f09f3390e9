"""Each law about writing, following and lasting catches the storage that breaks it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from storage.conformance import Opener, StorageLaws
from storage.conformance.auditing import AuditLaws
from storage.conformance.committing import CommitLaws
from storage.conformance.contending import ContentionLaws
from storage.conformance.feeding import FeedLaws
from storage.conformance.lasting import LastingLaws
from storage.conformance.sabotage import Passing, catches, sabotaged
from storage.errors import Conflict, OutOfBounds, StorageError, Unavailable
from storage.memory import open_memory
from storage.port import COMMIT_MAX, PAGE_MAX, Amended, AuditAppend, Change, Commit, Committed, Delete, Health
from storage.records import CheckpointRecord


def changed(commit: Commit, **parts: Any) -> Commit:
    """The commit with other parts."""
    names = ("inserts", "updates", "deletes", "expects", "audit", "announce")
    return Commit(**{name: getattr(commit, name) for name in names} | parts)


def commits(change: Callable[[Commit], Commit]) -> type[Passing]:
    """A storage that commits something else than it was given."""

    class Commits(Passing):
        async def commit(self, commit: Commit) -> Committed:
            return await super().commit(change(commit))

    return Commits


class AnnouncesFirst(Passing):
    """Writes the log and the feed, then the records."""

    async def commit(self, commit: Commit) -> Committed:
        done = await super().commit(Commit(audit=commit.audit, announce=commit.announce))
        await super().commit(changed(commit, audit=None, announce=()))
        return done


class LastWriteWins(Passing):
    """Looks at the stored revision instead of the caller's."""

    async def commit(self, commit: Commit) -> Committed:
        for _ in range(100):
            updates = []
            for record in commit.updates:
                stored = await self.inner.get(type(record), record.key)
                updates.append(replace(record, rev=stored.rev + 1) if stored else record)
            try:
                return await super().commit(changed(commit, updates=updates))
            except Conflict:
                continue
        raise Conflict


class AmendsAnyRevision(Passing):
    """Looks at the stored revision of what is amended instead of the caller's."""

    async def commit(self, commit: Commit) -> Committed:
        updates = []
        for each in commit.updates:
            stored = await self.inner.get(type(each.after), each.after.key) if isinstance(each, Amended) else None
            updates.append(replace(each.after, rev=stored.rev + 1) if stored else each)
        return await super().commit(changed(commit, updates=updates))


def amends_nothing(commit: Commit) -> Commit:
    """Counts the revisions of what is amended, and forgets what it was about."""
    amended = [each for each in commit.updates if isinstance(each, Amended)]
    rest = [each for each in commit.updates if not isinstance(each, Amended)]
    return changed(commit, updates=[*rest, *(replace(before, rev=after.rev) for before, after in amended)])


def writes_all_of_it(commit: Commit) -> Commit:
    """Writes amended records whole, and never looks at what they are made from."""
    return changed(commit, updates=[each.after if isinstance(each, Amended) else each for each in commit.updates])


def takes_the_last_of_each(commit: Commit) -> Commit:
    """Lets a commit name a record twice, and writes it as it is named last."""
    last = {(each.after if isinstance(each, Amended) else each).key: each for each in commit.updates}
    return changed(commit, updates=list(last.values()))


class DeletesAnyRevision(Passing):
    """Deletes whatever is stored under the key."""

    async def commit(self, commit: Commit) -> Committed:
        deletes = []
        for kind, key, _ in commit.deletes:
            stored = await self.inner.get(kind, key)
            deletes += [Delete(kind, key, stored.rev)] if stored else []
        return await super().commit(changed(commit, deletes=deletes))


class BelievesWhatItSaw(Passing):
    """Checks what commits rely on once, and not each time."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.seen: set[Any] = set()

    async def commit(self, commit: Commit) -> Committed:
        unseen = [expect for expect in commit.expects if expect not in self.seen]
        self.seen.update(unseen)
        return await super().commit(changed(commit, expects=unseen))


class UpdatesOneByOne(Passing):
    """Gives each record a transaction of its own."""

    async def commit(self, commit: Commit) -> Committed:
        for record in commit.updates:
            await super().commit(Commit(updates=[record]))
            await asyncio.sleep(0)
        for delete in commit.deletes:
            await super().commit(Commit(deletes=[delete]))
        return await super().commit(changed(commit, updates=(), deletes=()))


class Overtakes(Passing):
    """Lets every second call overtake the one before."""

    calls = 0

    async def commit(self, commit: Commit) -> Committed:
        self.calls += 1
        for _ in range(self.calls % 2 * 5):
            await asyncio.sleep(0)
        return await super().commit(commit)


class TriesAgain(Passing):
    """Hides a conflict by trying again a little later."""

    async def commit(self, commit: Commit) -> Committed:
        for _ in range(3):
            try:
                return await super().commit(commit)
            except Conflict:
                await asyncio.sleep(0)
        return await super().commit(commit)


def failing_together(kind: type[StorageError]) -> type[Passing]:
    """A storage where the commit after a refused one shares its fate."""

    class FailsTogether(Passing):
        failed = False

        async def commit(self, commit: Commit) -> Committed:
            try:
                done = await super().commit(commit)
            except kind:
                self.failed = True
                raise
            if self.failed:
                self.failed = False
                raise kind
            return done

    return FailsTogether


class AcknowledgesEarly(Passing):
    """Answers a commit when it has taken it in, and writes it with the next one."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.held: list[Commit] = []

    async def commit(self, commit: Commit) -> Committed:
        for earlier in self.held:
            await super().commit(earlier)
        self.held = [commit]
        return Committed(0, -1)


class SplitsLargeCommits(Passing):
    """Makes two commits of one that is too large."""

    async def commit(self, commit: Commit) -> Committed:
        try:
            return await super().commit(commit)
        except OutOfBounds:
            if commit.audit is None:
                raise
            half = len(commit.audit.entries) // 2
            await super().commit(changed(commit, audit=AuditAppend(commit.audit.log, commit.audit.entries[:half])))
            return await super().commit(Commit(audit=AuditAppend(commit.audit.log, commit.audit.entries[half:])))


class RefusesNothing(Passing):
    """Takes an empty commit for a mistake."""

    async def commit(self, commit: Commit) -> Committed:
        if commit == Commit():
            raise OutOfBounds
        return await super().commit(commit)


class InsertsIfAbsent(Passing):
    """Says nothing when a key exists already."""

    async def commit(self, commit: Commit) -> Committed:
        try:
            return await super().commit(commit)
        except Conflict:
            return Committed(0, -1)


class CommitsInTwoSteps(Passing):
    """Writes the records, then, in a second transaction, what tells of them."""

    async def commit(self, commit: Commit) -> Committed:
        await super().commit(changed(commit, audit=None, announce=()))
        return await super().commit(Commit(audit=commit.audit, announce=commit.announce))


class KeepsItsLock(Passing):
    """Never releases a lock whose holder was cancelled."""

    locked = False

    async def commit(self, commit: Commit) -> Committed:
        for _ in range(100):
            if not self.locked:
                break
            await asyncio.sleep(0)
        else:
            raise Unavailable
        self.locked = True
        done = await super().commit(commit)
        self.locked = False
        return done


class NumbersFromOne(Passing):
    """Counts like people."""

    async def commit(self, commit: Commit) -> Committed:
        done = await super().commit(commit)
        return done._replace(first_seq=done.first_seq + 1)


class UsesUpNumbers(Passing):
    """Leaves the numbers of a lost commit unused, here: in the hands of a filler."""

    async def commit(self, commit: Commit) -> Committed:
        try:
            return await super().commit(commit)
        except Conflict:
            await super().commit(Commit(audit=commit.audit))
            raise


class NumbersPerHandle(Passing):
    """Lets each handle count for itself."""

    async def commit(self, commit: Commit) -> Committed:
        own = AuditAppend(id(self) % 2**31, commit.audit.entries) if commit.audit else None
        return await super().commit(changed(commit, audit=own))


class CutsEntries(Passing):
    """Makes entries fit."""

    async def commit(self, commit: Commit) -> Committed:
        audit = commit.audit
        if audit is not None:
            audit = AuditAppend(audit.log, tuple(entry[:65_535] for entry in audit.entries))
        return await super().commit(changed(commit, audit=audit))


class AnnouncesFillers(Passing):
    """Uses a position for itself."""

    async def commit(self, commit: Commit) -> Committed:
        await super().commit(Commit(announce=[("filler", ())]))
        return await super().commit(commit)


class SkipsLines(Passing):
    """Shows a later change before an earlier one, which a follower then never sees."""

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        changes = await super().feed(after, limit)
        return changes[1:] if len(changes) > 1 and limit < PAGE_MAX else changes


class FeedsThePositionToo(Passing):
    """Begins at the position instead of behind it."""

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        return await super().feed(after - 1, limit)


class CountsItsOwn(Passing):
    """Knows only what this handle announced."""

    own = 0

    async def commit(self, commit: Commit) -> Committed:
        done = await super().commit(commit)
        self.own = max(self.own, done.position)
        return done

    async def position(self) -> int:
        return self.own


class WaitsForTheNext(Passing):
    """Waits for something that comes after the call, or its whole time."""

    async def wait(self, after: int, timeout_s: float) -> None:
        await super().wait(max(after, await self.position()), timeout_s)


class SleepsThrough(Passing):
    """Looks once, then sleeps its time out."""

    async def wait(self, after: int, timeout_s: float) -> None:
        if await self.position() <= after:
            await asyncio.sleep(timeout_s)


class WakesForItsOwn(CountsItsOwn):
    """Wakes only when this handle commits."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.woken = asyncio.Event()

    async def commit(self, commit: Commit) -> Committed:
        done = await super().commit(commit)
        self.woken.set()
        return done

    async def wait(self, after: int, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await self.woken.wait()


class WakesForNothing(Passing):
    """Does not wait."""

    async def wait(self, after: int, timeout_s: float) -> None:
        await asyncio.sleep(0)


class PrunesOneMore(Passing):
    """Forgets the line behind the position too."""

    async def prune_feed(self, up_to: int) -> None:
        await super().prune_feed(up_to + 1)


class CountsLines(Passing):
    """Takes the newest line that is left for the newest position."""

    async def position(self) -> int:
        changes = await self.inner.feed(0)
        return changes[-1].position if changes else 0


class ForgetsCheckpoints(Passing):
    """Keeps one type of record in the handle."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.kept: dict[Any, Any] = {}

    async def commit(self, commit: Commit) -> Committed:
        for record in commit.inserts:
            if isinstance(record, CheckpointRecord):
                self.kept[record.key] = record
        lasting = [record for record in commit.inserts if not isinstance(record, CheckpointRecord)]
        return await super().commit(changed(commit, inserts=lasting))

    async def get(self, kind: Any, key: Any) -> Any:
        return self.kept.get(key) if kind is CheckpointRecord else await super().get(kind, key)


class CountsAnew(CountsItsOwn):
    """Remembers the newest position in the handle, and otherwise counts lines."""

    async def position(self) -> int:
        changes = await self.inner.feed(0)
        return max(self.own, changes[-1].position if changes else 0)


class ServesWhenClosed(Passing):
    """Answers None for everything once it is closed."""

    async def get(self, kind: Any, key: Any) -> Any:
        try:
            return await super().get(kind, key)
        except Unavailable:
            return None


class ChecksNothing(Passing):
    """Is always well."""

    async def check(self) -> Health:
        return Health(schema=0, facts={})


def _reversed_entries(commit: Commit) -> Commit:
    audit = commit.audit
    return changed(commit, audit=audit and AuditAppend(audit.log, audit.entries[::-1]))


def _one_log(commit: Commit) -> Commit:
    return changed(commit, audit=commit.audit and AuditAppend(1, commit.audit.entries))


class SplitsAppends(Passing):
    """Makes an append for each entry."""

    async def commit(self, commit: Commit) -> Committed:
        assert commit.audit is not None
        for entry in commit.audit.entries:
            done = await super().commit(Commit(audit=AuditAppend(commit.audit.log, (entry,))))
        return done


SABOTEURS: dict[str, type[Passing]] = {
    "test_an_amended_record_is_stored_whole": commits(amends_nothing),
    "test_an_amendment_from_another_revision_changes_nothing": AmendsAnyRevision,
    "test_an_amendment_goes_from_one_revision_to_the_next": commits(writes_all_of_it),
    "test_an_amendment_behind_another_write_loses_nothing_of_it": AmendsAnyRevision,
    "test_a_commit_amends_a_record_once": commits(takes_the_last_of_each),
    "test_every_part_of_a_commit_happens": commits(lambda c: changed(c, deletes=())),
    "test_an_insert_of_an_existing_key_changes_nothing": AnnouncesFirst,
    "test_an_update_from_another_revision_changes_nothing": LastWriteWins,
    "test_a_delete_of_another_revision_changes_nothing": DeletesAnyRevision,
    "test_a_commit_needs_what_it_relies_on": commits(lambda c: changed(c, expects=())),
    "test_what_is_relied_on_holds_at_the_moment_of_writing": BelievesWhatItSaw,
    "test_one_wrong_update_among_many_undoes_all": UpdatesOneByOne,
    "test_a_commit_names_a_record_once": UpdatesOneByOne,
    "test_commits_of_one_caller_apply_in_order": Overtakes,
    "test_a_commit_before_what_it_needs_is_a_conflict": TriesAgain,
    "test_a_conflict_harms_no_other_commit": failing_together(Conflict),
    "test_a_refused_value_harms_no_other_commit": failing_together(OutOfBounds),
    "test_a_commit_is_seen_whole_or_not": UpdatesOneByOne,
    "test_an_acknowledged_commit_is_seen_by_all": AcknowledgesEarly,
    "test_a_commit_may_be_large_but_bounded": SplitsLargeCommits,
    "test_many_records_fit_in_one_commit": commits(lambda c: changed(c, inserts=c.inserts[: COMMIT_MAX // 20])),
    "test_an_empty_commit_is_fine": RefusesNothing,
    "test_one_of_two_handles_wins_each_revision": LastWriteWins,
    "test_one_of_many_updates_together_wins": LastWriteWins,
    "test_one_of_many_inserts_together_wins": InsertsIfAbsent,
    "test_a_cancelled_commit_is_whole_or_absent": CommitsInTwoSteps,
    "test_storage_serves_on_after_cancellations": KeepsItsLock,
    "test_entries_number_from_zero_without_gaps": NumbersFromOne,
    "test_a_block_holds_the_entries_of_its_commit": commits(_reversed_entries),
    "test_logs_number_each_for_itself": commits(_one_log),
    "test_a_conflict_leaves_no_gap": UsesUpNumbers,
    "test_handles_share_the_numbers": NumbersPerHandle,
    "test_numbers_follow_the_order_of_commits": Overtakes,
    "test_an_entry_has_a_size": CutsEntries,
    "test_an_append_has_a_size": SplitsAppends,
    "test_a_commit_announces_in_its_order": commits(lambda c: changed(c, announce=c.announce[::-1])),
    "test_positions_grow_without_gaps": AnnouncesFillers,
    "test_a_lost_commit_announces_nothing": AnnouncesFirst,
    "test_a_follower_sees_every_change_once": SkipsLines,
    "test_feed_begins_behind_a_position": FeedsThePositionToo,
    "test_position_is_the_newest": CountsItsOwn,
    "test_wait_returns_at_once_for_what_is_there": WaitsForTheNext,
    "test_wait_wakes_on_a_change": SleepsThrough,
    "test_wait_wakes_on_another_handles_change": WakesForItsOwn,
    "test_wait_ends_with_its_time": WakesForNothing,
    "test_prune_feed_forgets_only_what_was_named": PrunesOneMore,
    "test_a_position_is_never_used_twice": CountsLines,
    "test_everything_outlives_the_handle": ForgetsCheckpoints,
    "test_positions_outlive_the_handle_and_their_lines": CountsAnew,
    "test_accepted_commits_finish_before_closing": AcknowledgesEarly,
    "test_a_closed_handle_serves_nobody": ServesWhenClosed,
    "test_check_tells_the_schema": ChecksNothing,
}


@pytest.fixture
async def opener(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Handles on one store in memory, which outlives them."""
    url = f"memory:{request.node.name}"
    async with open_memory(url):
        yield lambda: open_memory(url)


@pytest.mark.parametrize("law", SABOTEURS)
async def test_a_writing_law_catches_its_saboteur(law: str, opener: Opener) -> None:
    """The law fails on the storage that breaks it."""
    async with asyncio.timeout(30):
        assert await catches(getattr(StorageLaws(), law), sabotaged(opener, SABOTEURS[law]))


@pytest.mark.parametrize("law", SABOTEURS)
async def test_a_writing_law_lets_the_honest_pass(law: str, opener: Opener) -> None:
    """A wrapper that breaks nothing passes, so what the saboteurs are caught for is what they do."""
    async with asyncio.timeout(30):
        assert not await catches(getattr(StorageLaws(), law), sabotaged(opener, Passing))


def test_every_writing_law_has_a_saboteur() -> None:
    """No law about writing, following or lasting goes unproven."""
    parts = (CommitLaws, ContentionLaws, AuditLaws, FeedLaws, LastingLaws)
    laws = [name for part in parts for name, _ in inspect.getmembers(part)]
    assert set(SABOTEURS) == {name for name in laws if name.startswith("test_")}
