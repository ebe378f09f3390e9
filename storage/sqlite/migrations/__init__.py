"""Bring a database file to the newest schema, one numbered SQL file after another, under an exclusive lock.

A released file is never edited: what it made is out there. Expand first (add), contract in a later release (remove),
so that the release before can still read the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from storage.sqlite.connection import APPLICATION_ID, schema_version

MIGRATIONS = ("0001_records.sql", "0002_replicas.sql")
"""In order; the n-th makes schema version n."""

NEWEST = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, path: Path, *, filling: bool = False) -> int:
    """Apply what is missing, all or nothing; the version before (0: the database was empty).

    filling: whether it may be a database whose filling was begun.
    NotOurs, NewerSchema, Damaged, Unfinished: the file must not be touched, and was not. sqlite3.Error: as SQLite says.
    """
    if schema_version(connection, path, newest=NEWEST, filling=filling) == NEWEST:
        return NEWEST
    connection.execute("BEGIN EXCLUSIVE")
    try:
        # Again, inside the lock: another process may have migrated while this one waited for it.
        before = schema_version(connection, path, newest=NEWEST, filling=filling)
        for number in range(before, NEWEST):
            for statement in _statements(MIGRATIONS[number]):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {NEWEST}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return before


def _statements(name: str) -> Iterator[str]:
    """The file's statements, one by one: `executescript` would commit first and so give up the lock."""
    statement = ""
    for line in resources.files(__name__).joinpath(name).read_text("utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), f"{name} ends inside a statement"
