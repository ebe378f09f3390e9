"""The PostgreSQL adapter: many replicas, one database; group commit in one statement; a feed in commit order."""

from __future__ import annotations

from storage.postgres.loading import load_postgres
from storage.postgres.opening import open_postgres

__all__ = ["load_postgres", "open_postgres"]
