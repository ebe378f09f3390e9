"""The laws of the storage port, run against every adapter that is shipped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from storage.catalog import LOADING_GROUP, adapters
from storage.conformance import Opener, StorageLaws
from storage.conformance.loading import Loader, LoadingLaws
from storage.memory import load_memory, open_memory
from storage.postgres import load_postgres, open_postgres
from storage.sqlite import load_sqlite, open_sqlite


class TestSqliteLaws(StorageLaws, LoadingLaws):
    """SQLite, on disk."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: open_sqlite(f"sqlite:///{tmp_path}/broker.db")

    @pytest.fixture
    def loader(self, tmp_path: Path) -> Loader:
        return lambda source: load_sqlite(f"sqlite:///{tmp_path}/broker.db", source)


class TestMemoryLaws(StorageLaws, LoadingLaws):
    """Memory; a handle is kept open so that the store outlives those of the law."""

    @pytest.fixture
    async def opener(self, request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
        url = f"memory:{request.node.name}"
        async with open_memory(url):
            yield lambda: open_memory(url)

    @pytest.fixture
    def loader(self, request: pytest.FixtureRequest) -> Loader:
        return lambda source: load_memory(f"memory:{request.node.name}", source)


class TestPostgresLaws(StorageLaws, LoadingLaws):
    """PostgreSQL, a fresh database for each law."""

    @pytest.fixture
    def url(self, postgres: Any) -> str:
        made: str = postgres.url(postgres.create())
        return made

    @pytest.fixture
    def opener(self, url: str) -> Opener:
        return lambda: open_postgres(url)

    @pytest.fixture
    def loader(self, url: str) -> Loader:
        return lambda source: load_postgres(url, source)


ENROLLED = {
    "sqlite": TestSqliteLaws,
    "memory": TestMemoryLaws,
    "postgresql": TestPostgresLaws,
    "postgres": TestPostgresLaws,
}


def test_every_adapter_has_enrolled() -> None:
    """An adapter that the catalog offers without running the laws fails here."""
    assert set(adapters()) == set(ENROLLED)
    assert set(adapters(LOADING_GROUP)) == {name for name, laws in ENROLLED.items() if issubclass(laws, LoadingLaws)}
