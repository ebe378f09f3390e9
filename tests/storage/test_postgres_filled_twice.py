"""Filling whose lock was lost without its process learning of it: nothing half filled is ever opened."""

from __future__ import annotations

from typing import Any

import pytest

from storage.conformance.samples import sample
from storage.errors import Refused, Unfinished
from storage.postgres import load_postgres, open_postgres
from storage.records import AdminRecord


async def test_who_was_overtaken_does_not_open_the_others_half(postgres: Any) -> None:
    """The first has loaded all and wants to finish; meanwhile a second one has thrown that away and begun anew."""
    database = postgres.create()
    url = postgres.url(database)
    async with load_postgres(url, "first") as first:
        await first.load([sample(AdminRecord, 1)])
        postgres.sql(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        async with load_postgres(url, "second") as second:
            with pytest.raises(Refused, match="somebody else"):
                await first.finish(7)
            with pytest.raises(Unfinished):
                await open_postgres(url).__aenter__()
            await second.finish(7)
    async with open_postgres(url) as storage:
        assert await storage.get(AdminRecord, sample(AdminRecord, 1).key) is None
