"""Each law about reading catches the storage that breaks it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from datetime import timedelta, timezone
from typing import Any

import pytest
from msgspec.structs import replace

from storage.conformance import Opener, StorageLaws
from storage.conformance.keeping import KeepingLaws
from storage.conformance.sabotage import Passing, catches, sabotaged
from storage.conformance.samples import at
from storage.conformance.selecting import SelectLaws
from storage.conformance.timing import TICK, TimingLaws
from storage.memory import open_memory
from storage.port import PAGE_MAX, Commit, Committed, Page
from storage.records import GrantRecord, LeaseRecord, TokenRecord, VersionRecord
from storage.table import Record


def reads(kind: type[Record], change: Callable[[Any], Any]) -> type[Passing]:
    """A storage whose records of one type come back changed."""

    def changed(record: Any) -> Any:
        return change(record) if isinstance(record, kind) else record

    class Reads(Passing):
        async def get(self, *args: Any) -> Any:
            return changed(await super().get(*args))

        async def get_many(self, *args: Any) -> Any:
            return {key: changed(record) for key, record in (await super().get_many(*args)).items()}

        async def select(self, *args: Any, **options: Any) -> Any:
            page = await super().select(*args, **options)
            return Page(records=[changed(record) for record in page.records], next=page.next)

    return Reads


def selects(change: Callable[[list[Any]], list[Any]]) -> type[Passing]:
    """A storage whose pages hold other records, or in another order."""

    class Selects(Passing):
        async def select(self, *args: Any, **options: Any) -> Any:
            page = await super().select(*args, **options)
            return Page(records=change(page.records), next=page.next)

    return Selects


def asks(change: Callable[[dict[str, Any]], dict[str, Any]]) -> type[Passing]:
    """A storage that selects something else than it was asked."""

    class Asks(Passing):
        async def select(self, kind: Any, **options: Any) -> Any:
            return await super().select(kind, **change(options))

    return Asks


def dues(change: Callable[[list[Any]], list[Any]]) -> type[Passing]:
    """A storage whose due records come in another order."""

    class Dues(Passing):
        async def due(self, *args: Any) -> Any:
            return change(await super().due(*args))

    return Dues


class CountsThePage(Passing):
    """Counts whatever the limit, or at most a page."""

    async def count(self, kind: Any, *, index: str = "key", prefix: Any = (), limit: int) -> int:
        return len((await self.inner.select(kind, index=index, prefix=prefix)).records)


class Saturates(Passing):
    """Stores the nearest integer that fits."""

    async def commit(self, commit: Commit) -> Committed:
        fitting = [
            replace(record, acked_version=max(-(2**63), min(2**63 - 1, record.acked_version)))
            for record in commit.inserts
        ]
        return await super().commit(Commit(inserts=fitting))


class AnswersTheFirst(Passing):
    """Answers some record for a key that is not there."""

    async def get(self, kind: Any, key: Any) -> Any:
        return await super().get(kind, key) or (await super().select(kind, limit=1)).records[0]


class AnswersNone(Passing):
    """Lists absent keys."""

    async def get_many(self, kind: Any, keys: Any) -> Any:
        return dict.fromkeys(keys) | await super().get_many(kind, keys)


class TakesAnyNumberOfKeys(Passing):
    """Has no bound on keys."""

    async def get_many(self, kind: Any, keys: Any) -> Any:
        parts = [await super(TakesAnyNumberOfKeys, self).get_many(kind, [key]) for key in keys]
        return {key: record for part in parts for key, record in part.items()}


class KeepsTheCallersRecords(Passing):
    """Holds on to what it was given."""

    held: Any = ()

    async def commit(self, commit: Commit) -> Committed:
        self.held = commit.inserts
        return await super().commit(commit)

    async def get(self, kind: Any, key: Any) -> Any:
        return next(record for record in self.held if record.key == key)


class Merges(Passing):
    """Lets an update keep the old value where the new one is None."""

    async def commit(self, commit: Commit) -> Committed:
        updates = []
        for record in commit.updates:
            old: Any = await self.inner.get(type(record), record.key)
            kept = {name: getattr(old, name) for name in record.__struct_fields__ if getattr(record, name) is None}
            updates.append(replace(record, **kept))
        return await super().commit(Commit(inserts=commit.inserts, updates=updates))


class ReversesThePage(Passing):
    """Takes the first page also when asked from the end."""

    async def select(self, kind: Any, *, descending: bool = False, **options: Any) -> Any:
        page = await super().select(kind, **options)
        return Page(records=page.records[::-1], next=page.next) if descending else page


class FiltersLate(Passing):
    """Cuts the page before it chooses."""

    async def select(self, kind: Any, *, where: Any = None, **options: Any) -> Any:
        page = await super().select(kind, **options)
        chosen = [r for r in page.records if all(getattr(r, name) == value for name, value in (where or {}).items())]
        return Page(records=chosen, next=page.next)


class ExpectsMore(Passing):
    """Takes a full page for a sign that another follows."""

    async def select(self, kind: Any, *, limit: int = PAGE_MAX, **options: Any) -> Any:
        page = await super().select(kind, limit=limit, **options)
        full = len(page.records) == limit
        return Page(records=page.records, next=page.records[-1].key if full else None)


class PagesByOffset(Passing):
    """Counts records instead of remembering where it was."""

    async def select(self, kind: Any, *, after: Any = None, limit: int = PAGE_MAX, **options: Any) -> Any:
        everything = (await super().select(kind, **options)).records
        start = 0 if after is None else after[0]
        page = everything[start : start + limit]
        return Page(records=page, next=(start + limit,) if start + limit < len(everything) else None)


class TakesAnyColumn(Passing):
    """Falls back to the key's order and ignores conditions that it does not know."""

    async def select(self, kind: Any, *, index: str = "key", where: Any = None, **options: Any) -> Any:
        return await super().select(kind, **options)


class ClampsLimits(Passing):
    """Answers a page of the nearest size that is allowed."""

    async def select(self, kind: Any, *, limit: int = PAGE_MAX, **options: Any) -> Any:
        return await super().select(kind, limit=max(1, min(PAGE_MAX, limit)), **options)


class ForgetsTheRest(Passing):
    """Says that a full page was the last one."""

    async def select(self, kind: Any, *, limit: int = PAGE_MAX, **options: Any) -> Any:
        page = await super().select(kind, limit=limit, **options)
        return Page(records=page.records, next=None if limit == PAGE_MAX else page.next)


class DueTooLate(Passing):
    """Leaves out what is due at the very instant."""

    async def due(self, kind: Any, column: str, before: Any, limit: int = PAGE_MAX) -> Any:
        return await super().due(kind, column, before - TICK, limit)


class DueForever(Passing):
    """Takes None for the beginning of time."""

    async def due(self, kind: Any, column: str, before: Any, limit: int = PAGE_MAX) -> Any:
        never = (await super().select(kind, where={column: None})).records
        return never + await super().due(kind, column, before, limit)


class DueWithoutLimit(Passing):
    """Answers all that is due."""

    async def due(self, kind: Any, column: str, before: Any, limit: int = PAGE_MAX) -> Any:
        return await super().due(kind, column, before)


class DueByAStaleIndex(Passing):
    """Does not move a record that an update puts off."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.first: dict[Any, Any] = {}

    async def commit(self, commit: Commit) -> Committed:
        for record in commit.inserts:
            self.first[record.key] = record
        return await super().commit(commit)

    async def due(self, kind: Any, column: str, before: Any, limit: int = PAGE_MAX) -> Any:
        return [record for record in self.first.values() if record.due_at <= before]


class PrunesTheInstant(Passing):
    """Deletes what is due at the very instant too."""

    async def prune(self, kind: Any, column: str, before: Any, limit: int = PAGE_MAX) -> int:
        return await super().prune(kind, column, before + TICK, limit)


class PrunesWithoutLimit(Passing):
    """Deletes all that is over, and says what was asked."""

    async def prune(self, kind: Any, column: str, before: Any, limit: int = PAGE_MAX) -> int:
        return min(limit, await super().prune(kind, column, before))


class DueByAnyColumn(Passing):
    """Finds nothing by a column that is not declared, instead of saying so."""

    async def due(self, *args: Any) -> Any:
        try:
            return await super().due(*args)
        except KeyError:
            return []


def _ties_backwards(records: list[Any]) -> list[Any]:
    return sorted(sorted(records, key=lambda r: r.key, reverse=True), key=lambda r: r.due_at)


def _index_ties_backwards(records: list[Any]) -> list[Any]:
    return sorted(sorted(records, key=lambda r: r.key, reverse=True), key=lambda r: r.subject)


ELSEWHERE = timezone(timedelta(hours=1))

SABOTEURS: dict[str, type[Passing]] = {
    "test_every_record_type_returns_as_it_was_stored": reads(GrantRecord, lambda r: replace(r, windows=())),
    "test_every_record_type_returns_with_nothing_in_it": reads(
        LeaseRecord, lambda r: replace(r, ended_at=r.ended_at or at(0))
    ),
    "test_text_of_any_kind_returns_unchanged": reads(
        LeaseRecord, lambda r: replace(r, reason=r.reason.partition("\0")[0])
    ),
    "test_text_in_structures_returns_unchanged": reads(
        TokenRecord, lambda r: replace(r, labels={k: v.replace("\0", "") for k, v in r.labels.items()})
    ),
    "test_bytes_of_any_kind_return_unchanged": reads(
        VersionRecord, lambda r: replace(r, sealed=r.sealed.rstrip(b"\0"))
    ),
    "test_integers_of_64_bits_return_exactly": reads(
        LeaseRecord, lambda r: replace(r, acked_version=int(float(r.acked_version)))
    ),
    "test_what_a_column_cannot_hold_is_refused": Saturates,
    "test_floats_return_exactly": reads(LeaseRecord, lambda r: replace(r, ttl_s=float(f"{r.ttl_s:.15g}"))),
    "test_instants_keep_their_microseconds": reads(
        LeaseRecord,
        lambda r: replace(r, granted_at=r.granted_at.replace(microsecond=r.granted_at.microsecond // 1000 * 1000)),
    ),
    "test_instants_return_in_utc": reads(
        LeaseRecord, lambda r: replace(r, granted_at=r.granted_at.astimezone(ELSEWHERE))
    ),
    "test_an_absent_key_is_none": AnswersTheFirst,
    "test_get_many_leaves_out_absent_keys": AnswersNone,
    "test_get_many_takes_a_page_of_keys_and_no_more": TakesAnyNumberOfKeys,
    "test_what_a_caller_changes_afterwards_is_not_stored": KeepsTheCallersRecords,
    "test_an_update_replaces_the_whole_record": Merges,
    "test_keys_order_by_code_point": selects(lambda records: sorted(records, key=lambda r: r.name.casefold())),
    "test_integers_order_by_value": selects(lambda records: sorted(records, key=lambda r: str(r.version))),
    "test_descending_is_the_reverse": ReversesThePage,
    "test_an_index_orders_by_its_columns_then_the_key": selects(_index_ties_backwards),
    "test_prefix_fixes_the_first_columns": asks(lambda o: o | {"prefix": ()}),
    "test_count_counts_what_equals_the_prefix": CountsThePage,
    "test_a_count_is_bounded": CountsThePage,
    "test_prefix_and_after_together": asks(lambda o: o | {"prefix": ()} if o["after"] else o),
    "test_where_chooses": FiltersLate,
    "test_after_may_be_made_by_hand": asks(lambda o: o | {"after": (*o["after"], 0)} if len(o["after"]) == 1 else o),
    "test_the_last_page_says_so": ExpectsMore,
    "test_paging_is_stable_under_writes": PagesByOffset,
    "test_an_unknown_order_or_column_is_a_key_error": TakesAnyColumn,
    "test_pages_are_bounded": ClampsLimits,
    "test_a_page_is_at_most_its_limit": ForgetsTheRest,
    "test_due_comes_earliest_first": dues(lambda records: sorted(records, key=lambda r: r.key)),
    "test_due_ties_go_by_key": dues(_ties_backwards),
    "test_due_includes_the_instant_itself": DueTooLate,
    "test_what_has_no_instant_is_never_due": DueForever,
    "test_due_keeps_to_its_limit": DueWithoutLimit,
    "test_due_follows_updates": DueByAStaleIndex,
    "test_prune_deletes_strictly_before": PrunesTheInstant,
    "test_prune_keeps_to_its_limit": PrunesWithoutLimit,
    "test_only_declared_columns_can_be_due": DueByAnyColumn,
}


@pytest.fixture
async def opener(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Handles on one store in memory, which outlives them."""
    url = f"memory:{request.node.name}"
    async with open_memory(url):
        yield lambda: open_memory(url)


@pytest.mark.parametrize("law", SABOTEURS)
async def test_a_reading_law_catches_its_saboteur(law: str, opener: Opener) -> None:
    """The law fails on the storage that breaks it."""
    async with asyncio.timeout(30):
        assert await catches(getattr(StorageLaws(), law), sabotaged(opener, SABOTEURS[law]))


def test_every_reading_law_has_a_saboteur() -> None:
    """No law about reading goes unproven."""
    laws = [name for part in (KeepingLaws, SelectLaws, TimingLaws) for name, _ in inspect.getmembers(part)]
    assert set(SABOTEURS) == {name for name in laws if name.startswith("test_")}
