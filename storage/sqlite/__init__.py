"""The SQLite adapter: one file, one writing process, many readers; group commit; every commit survives power loss."""

from __future__ import annotations

from storage.sqlite.backup import restore_sqlite
from storage.sqlite.loading import load_sqlite
from storage.sqlite.opening import open_sqlite

__all__ = ["load_sqlite", "open_sqlite", "restore_sqlite"]
