"""Grant records for policy tests, with every field that a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.records.grants import GrantRecord

Grant = Callable[..., GrantRecord]


@pytest.fixture(scope="session")
def grant() -> Grant:
    """Make a grant record: an unconditional, everlasting one of worker w for everything, but for what is given."""

    def make(grant_id: str = "g", **fields: Any) -> GrantRecord:
        defaults: dict[str, Any] = {
            "subject": "worker:w",
            "pattern": "**",
            "ttl_s": 300,
            "max_ttl_s": 3600,
            "source_cidrs": (),
            "windows": (),
            "created_by": "root",
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            "expires_at": None,
        }
        return GrantRecord(id=grant_id, **{**defaults, **fields})

    return make
