"""The laws of the storage port, run against every adapter that is shipped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from storage.catalog import adapters
from storage.conformance import Opener, StorageLaws
from storage.memory import open_memory
from storage.postgres import open_postgres
from storage.sqlite import open_sqlite


class TestSqliteLaws(StorageLaws):
    """SQLite, on disk."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: open_sqlite(f"sqlite:///{tmp_path}/broker.db")


class TestMemoryLaws(StorageLaws):
    """Memory; a handle is kept open so that the store outlives those of the law."""

    @pytest.fixture
    async def opener(self, request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
        url = f"memory:{request.node.name}"
        async with open_memory(url):
            yield lambda: open_memory(url)


class TestPostgresLaws(StorageLaws):
    """PostgreSQL, a fresh database for each law."""

    @pytest.fixture
    def opener(self, postgres: Any) -> Opener:
        url = postgres.url(postgres.create())
        return lambda: open_postgres(url)


ENROLLED = {
    "sqlite": TestSqliteLaws,
    "memory": TestMemoryLaws,
    "postgresql": TestPostgresLaws,
    "postgres": TestPostgresLaws,
}


def test_every_adapter_has_enrolled() -> None:
    """An adapter that the catalog offers without running the laws fails here."""
    assert set(adapters()) == set(ENROLLED)
