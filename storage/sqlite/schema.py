"""The SQL schema that the record types imply, as text: `schema_sql()`.

The migrations in `storage/sqlite/migrations` are what is applied; a test compares their result with this text, so that
a record changed without a migration fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage import records
from storage.codec import Affinity, Codec
from storage.table import Record

OWN = """\
CREATE TABLE "feed" (
  "position" INTEGER PRIMARY KEY AUTOINCREMENT,
  "table" TEXT NOT NULL,
  "key" TEXT NOT NULL
) STRICT;
CREATE TABLE "health" ("checks" INTEGER NOT NULL) STRICT;
INSERT INTO "health" VALUES (0);
"""
"""What the adapter keeps for itself. AUTOINCREMENT: a position is never used twice, even after pruning the newest."""


def quote(identifier: str) -> str:
    """The identifier as SQL; any name is safe, keywords included."""
    return '"' + identifier.replace('"', '""') + '"'


def quoted(identifiers: Iterable[str]) -> str:
    """The identifiers, quoted, with commas between."""
    return ", ".join(map(quote, identifiers))


def table_sql(codec: Codec[Any]) -> str:
    """CREATE TABLE and CREATE INDEX for one record type, each ended by a semicolon and a newline.

    Rows lie in key order (WITHOUT ROWID), so the key needs no second tree. Not so where a column holds bytes: long rows
    make that tree deep (docs/decisions/0002-storage-port.md has the numbers). An index names the key's columns last,
    which makes every order total. Due columns are indexed only where they are set: what is never due costs nothing.
    """
    table = codec.table
    lines = [
        f"  {quote(column.name)} {column.affinity.value}{'' if column.nullable else ' NOT NULL'}"
        for column in codec.columns
    ]
    lines.append(f"  PRIMARY KEY ({quoted(table.key)})")
    long_rows = any(column.affinity is Affinity.BLOB for column in codec.columns)
    options = "STRICT" if long_rows else "STRICT, WITHOUT ROWID"
    statements = [f"CREATE TABLE {quote(table.name)} (\n" + ",\n".join(lines) + f"\n) {options};\n"]
    for name in table.indexes:
        index = quote(f"{table.name}.{name}")
        statements.append(f"CREATE INDEX {index} ON {quote(table.name)} ({quoted(table.order(name))});\n")
    for due in table.due:
        index = quote(f"{table.name}.{due}")
        columns = quoted((due, *table.key))
        # Where None cannot be, SQLite would not see that a search implies the condition, and scan the table.
        where = f"\n  WHERE {quote(due)} IS NOT NULL" if codec.column(due).nullable else ""
        statements.append(f"CREATE INDEX {index} ON {quote(table.name)} ({columns}){where};\n")
    return "".join(statements)


def schema_sql(kinds: Iterable[type[Record]] = records.ALL) -> str:
    """The whole schema, tables in the order of their names."""
    tables = sorted((Codec(kind) for kind in kinds), key=lambda codec: codec.table.name)
    return OWN + "".join(table_sql(codec) for codec in tables)
