"""Each law about filling a database catches the adapter that breaks it."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from storage.conformance import Opener
from storage.conformance.loading import Loader, LoadingLaws
from storage.conformance.sabotage import Passing, catches
from storage.errors import Refused
from storage.memory import load_memory, open_memory
from storage.port import PAGE_MAX, Loading
from storage.records import AuditBlockRecord
from storage.table import Record


class PassingLoading(Passing):
    """Passes every call on. A saboteur derives from it and gets one thing wrong."""

    inner: Loading

    async def load(self, records: Sequence[Record]) -> None:
        await self.inner.load(records)

    async def finish(self, position: int) -> None:
        await self.inner.finish(position)


class LoadsFirstRevisions(PassingLoading):
    async def load(self, records: Sequence[Record]) -> None:
        await super().load([replace(record, rev=1) for record in records])


class MovesBlocks(PassingLoading):
    async def load(self, records: Sequence[Record]) -> None:
        moved = [replace(each, seq=each.seq + 1) if isinstance(each, AuditBlockRecord) else each for each in records]
        await super().load(moved)


class ForgetsThePosition(PassingLoading):
    async def finish(self, position: int) -> None:
        await super().finish(0)


class LoadsAnyNumber(PassingLoading):
    async def load(self, records: Sequence[Record]) -> None:
        for start in range(0, len(records), PAGE_MAX):
            await super().load(records[start : start + PAGE_MAX])


Saboteur = Callable[[str], Loader]
"""Given the store's name, how it is filled."""


def wrapped(saboteur: type[PassingLoading]) -> Saboteur:
    """Fills through the saboteur."""

    def made(url: str) -> Loader:
        @asynccontextmanager
        async def load(source: str) -> AsyncIterator[Loading]:
            async with load_memory(url, source) as inner:
                yield saboteur(inner)

        return load

    return made


def as_source(change: Callable[[str], str]) -> Saboteur:
    """Takes the source for another one."""
    return lambda url: lambda source: load_memory(url, change(source))


def leaves_no_mark(url: str) -> Loader:
    """Lets the database be opened as soon as its filling has begun."""

    @asynccontextmanager
    async def load(source: str) -> AsyncIterator[Loading]:
        async with load_memory(url, source) as inner:
            await inner.finish(0)
            yield inner

    return load


def fills_anything(url: str) -> Loader:
    """Fills what is not empty."""

    @asynccontextmanager
    async def load(source: str) -> AsyncIterator[Any]:
        try:
            opened: AbstractAsyncContextManager[Any] = load_memory(url, source)
            inner = await opened.__aenter__()
        except Refused:
            opened = open_memory(url)
            inner = await opened.__aenter__()
        try:
            yield inner
        finally:
            await opened.__aexit__(None, None, None)

    return load


SABOTEURS: Mapping[str, Saboteur] = {
    "test_records_of_any_revision_are_loaded_as_they_are": wrapped(LoadsFirstRevisions),
    "test_a_loaded_record_goes_on_from_its_revision": wrapped(LoadsFirstRevisions),
    "test_audit_logs_go_on_behind_what_was_loaded": wrapped(MovesBlocks),
    "test_the_feed_is_empty_and_goes_on_behind_the_position": wrapped(ForgetsThePosition),
    "test_a_database_that_was_not_finished_is_not_opened": leaves_no_mark,
    "test_a_fill_from_the_same_source_goes_on": as_source(lambda _: secrets.token_hex(8)),
    "test_a_fill_from_another_source_starts_from_nothing": as_source(lambda _: "always"),
    "test_a_database_with_records_is_not_filled": fills_anything,
    "test_a_database_that_was_used_is_not_filled": fills_anything,
    "test_a_load_is_a_page_at_most": wrapped(LoadsAnyNumber),
}


@pytest.fixture
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A store in memory, which outlives the handles."""
    name = f"memory:{request.node.name}"
    async with open_memory(name):
        yield name


def _law(name: str, loader: Loader) -> Callable[[Opener], Awaitable[None]]:
    law = getattr(LoadingLaws(), name)
    if "opener" in inspect.signature(law).parameters:
        return lambda opener: law(opener, loader)
    return lambda _: law(loader)


@pytest.mark.parametrize("law", SABOTEURS)
async def test_a_loading_law_catches_its_saboteur(law: str, url: str) -> None:
    """The law fails on the adapter that breaks it."""
    async with asyncio.timeout(30):
        assert await catches(_law(law, SABOTEURS[law](url)), lambda: open_memory(url))


@pytest.mark.parametrize("law", SABOTEURS)
async def test_a_loading_law_lets_the_honest_pass(law: str, url: str) -> None:
    """A wrapper that breaks nothing passes, so what the saboteurs are caught for is what they do."""
    async with asyncio.timeout(30):
        assert not await catches(_law(law, wrapped(PassingLoading)(url)), lambda: open_memory(url))


def test_every_loading_law_has_a_saboteur() -> None:
    """No law about filling goes unproven."""
    laws = [name for name, _ in inspect.getmembers(LoadingLaws) if name.startswith("test_")]
    assert set(SABOTEURS) == set(laws)
