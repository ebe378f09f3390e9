"""Everything that reads: functions that run in a reader's thread, one statement each, so each sees one moment.

Choosing a reader and waiting for it is `readers`' business.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from storage.codec import Cell
from storage.errors import Damaged
from storage.port import Change, Page
from storage.sqlite.statements import Statements
from storage.table import Key
from storage.work import key_from_json


def get(connection: sqlite3.Connection, table: Statements, key: Key) -> Any:
    """The record, or None."""
    row = connection.execute(table.get(1), key).fetchone()
    return None if row is None else table.codec.from_row(row)


def get_many(connection: sqlite3.Connection, table: Statements, keys: Sequence[Key]) -> dict[Key, Any]:
    """The records found among at least one key."""
    size = 1 << (len(keys) - 1).bit_length()  # filled up to a power of two, so that few statements exist
    cells = [cell for key in (*keys, *[keys[-1]] * (size - len(keys))) for cell in key]
    codec = table.codec
    rows = {codec.key_of(row): row for row in connection.execute(table.get(size), cells).fetchall()}
    return {key: codec.from_row(row) for key, row in rows.items()}


def select(
    connection: sqlite3.Connection,
    table: Statements,
    *,
    index: str,
    sql: str,
    parameters: Sequence[Cell],
    limit: int,
) -> Page[Any]:
    """One page; one row more is read, so as to know whether another page follows."""
    rows = connection.execute(sql, (*parameters, limit + 1)).fetchall()
    more = len(rows) > limit
    del rows[limit:]
    return Page(
        records=[table.codec.from_row(row) for row in rows],
        next=table.order_of(rows[-1], index) if more else None,
    )


def count(connection: sqlite3.Connection, sql: str, parameters: Sequence[Cell]) -> int:
    """How many rows a statement of `Statements.count` finds."""
    return int(connection.execute(sql, parameters).fetchone()[0])


def due(connection: sqlite3.Connection, table: Statements, column: str, before: int, limit: int) -> list[Any]:
    """Due records, earliest first."""
    rows = connection.execute(table.due(column), (before, limit)).fetchall()
    return [table.codec.from_row(row) for row in rows]


def feed(connection: sqlite3.Connection, after: int, limit: int) -> list[Change]:
    """Changes behind a position. Damaged: a line's key cannot be read."""
    sql = 'SELECT "position", "table", "key" FROM feed WHERE position > ? ORDER BY position LIMIT ?'
    rows = connection.execute(sql, (after, limit)).fetchall()
    try:
        return [Change(position, table, key_from_json(key)) for position, table, key in rows]
    except msgspec.MsgspecError:
        raise Damaged(f"a line of the feed behind position {after} cannot be read; restore the newest backup") from None


def position(connection: sqlite3.Connection) -> int:
    """The newest position that was ever given."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'feed'").fetchone()
    return 0 if row is None else int(row[0])


def facts(connection: sqlite3.Connection, path: Path) -> Mapping[str, str | int]:
    """Sizes and versions, for people."""
    pragma = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "page_size", "page_count", "freelist_count", "user_version")
    }
    log = path.with_name(path.name + "-wal")
    return {
        "engine": "sqlite " + sqlite3.sqlite_version,
        "journal_mode": str(pragma["journal_mode"]),
        "schema": int(pragma["user_version"]),
        "bytes": pragma["page_size"] * pragma["page_count"],
        "free_bytes": pragma["page_size"] * pragma["freelist_count"],
        "wal_bytes": log.stat().st_size if log.exists() else 0,
    }
