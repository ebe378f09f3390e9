"""storage.catalog: from a URL's scheme to an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.catalog import adapters, open_storage, shown_url
from storage.errors import Refused, Unreachable
from storage.port import Commit
from storage.records import LeaseRecord


async def test_the_scheme_chooses_the_adapter(database: Path) -> None:
    """sqlite: opens a file, memory: does not."""
    async with open_storage(f"sqlite:///{database}") as storage:
        await storage.commit(Commit())
    assert database.exists()
    async with open_storage("memory:") as storage:
        assert (await storage.select(LeaseRecord)).records == []


def test_an_unknown_scheme_names_the_known_ones() -> None:
    """The refusal lists what is installed and how to install more."""
    with pytest.raises(Refused) as refusal:
        open_storage("oracle://scott:tiger@db/broker")
    for word in ("'oracle'", "installed: ", "memory", "sqlite", "pip install"):
        assert word in str(refusal.value)


def test_a_refused_url_is_not_repeated() -> None:
    """A URL may hold a password; only its scheme comes back."""
    with pytest.raises(Unreachable) as refusal:
        open_storage("oracle://scott:tiger@db/broker")
    assert "tiger" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://tb:canary@db1,db2:5433/broker?passfile=/canary", "postgresql://tb@db1,db2:5433/broker"),
        ("postgresql://tb@[::1]/broker", "postgresql://tb@[::1]/broker"),
        ("sqlite:////var/lib/tokenbroker/broker.db", "sqlite:////var/lib/tokenbroker/broker.db"),
        ("memory:canvas", "memory:canvas"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """What people and programs are told of a database names it, and holds no secret."""
    assert shown_url(url) == shown


def test_sqlite_and_memory_are_installed() -> None:
    """Both come with the server itself."""
    assert {"sqlite", "memory"} <= set(adapters())
