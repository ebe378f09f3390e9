"""The laws among processes, against every adapter that serves more than one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage.conformance.processes import ProcessLaws


class TestSqliteProcesses(ProcessLaws):
    """SQLite: processes take turns at the file's lock."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/broker.db"


class TestPostgresProcesses(ProcessLaws):
    """PostgreSQL: as many processes as replicas."""

    @pytest.fixture
    def url(self, postgres: Any) -> str:
        url: str = postgres.url(postgres.create())
        return url
