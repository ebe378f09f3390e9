"""The schema that the record types imply, as text: `schema_sql()`.

The migrations in `storage/postgres/migrations` are what is applied; a test compares their result with this text, so
that a record changed without a migration fails. Everything lies in one schema, `tokenbroker`, so that roles can be
given exactly that, and a database may hold other things beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage import records
from storage.codec import Affinity, Codec
from storage.table import Record

SCHEMA = "tokenbroker"

TYPES = {
    Affinity.TEXT: 'text COLLATE "C"',
    Affinity.INTEGER: "bigint",
    Affinity.REAL: "double precision",
    Affinity.BLOB: "bytea",
}
"""How each kind of column is declared. "C" orders by code point, as the port's other adapters do."""

ARRAYS = {
    Affinity.TEXT: "text[]",
    Affinity.INTEGER: "bigint[]",
    Affinity.REAL: "double precision[]",
    Affinity.BLOB: "bytea[]",
}
"""The type of an array of such cells."""

OWN = """\
CREATE TABLE tokenbroker.schema_version (version integer NOT NULL, oldest_reader integer NOT NULL);
CREATE TABLE tokenbroker.health (checks bigint NOT NULL);
INSERT INTO tokenbroker.health VALUES (0);
CREATE TABLE tokenbroker.feed (
  position bigint PRIMARY KEY,
  "table" text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL
);
CREATE TABLE tokenbroker.feed_head (position bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO tokenbroker.feed_head VALUES (0);
CREATE TABLE tokenbroker.audit_head (log bigint PRIMARY KEY, next bigint NOT NULL) WITH (fillfactor = 10);
CREATE FUNCTION tokenbroker.settled(whole boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF whole IS NOT TRUE THEN
    RAISE EXCEPTION 'a compare-and-set was lost' USING ERRCODE = 'TB001';
  END IF;
  RETURN true;
END $$;
"""
"""What the adapter keeps for itself.

feed_head, audit_head: the newest position, and the next number of each audit log. A commit that takes numbers holds the
row until it has ended, so that numbers are given in the order of commits, without gaps, and a commit that is undone
gives them back. Much of such a page stays free, so that the row that changes most is rewritten in place.
schema_version: what was migrated to, and the oldest schema whose release can still work with it.
settled: ends a statement that did not find every row as it was read.
"""


def quote(identifier: str) -> str:
    """The identifier as SQL; any name is safe, keywords included."""
    return '"' + identifier.replace('"', '""') + '"'


def quoted(identifiers: Iterable[str]) -> str:
    """The identifiers, quoted, with commas between."""
    return ", ".join(map(quote, identifiers))


def qualified(table: str) -> str:
    """The table's full name."""
    return f"{SCHEMA}.{quote(table)}"


def table_sql(codec: Codec[Any]) -> str:
    """CREATE TABLE and CREATE INDEX for one record type, each ended by a semicolon and a newline."""
    table = codec.table
    lines = [
        f"  {quote(column.name)} {TYPES[column.affinity]}{'' if column.nullable else ' NOT NULL'}"
        for column in codec.columns
    ]
    lines.append(f"  PRIMARY KEY ({quoted(table.key)})")
    statements = [f"CREATE TABLE {qualified(table.name)} (\n" + ",\n".join(lines) + "\n);\n"]
    for name in table.indexes:
        index = quote(f"{table.name}.{name}")
        statements.append(f"CREATE INDEX {index} ON {qualified(table.name)} ({quoted(table.order(name))});\n")
    for due in table.due:
        index = quote(f"{table.name}.{due}")
        columns = quoted((due, *table.key))
        where = f"\n  WHERE {quote(due)} IS NOT NULL" if codec.column(due).nullable else ""
        statements.append(f"CREATE INDEX {index} ON {qualified(table.name)} ({columns}){where};\n")
    return "".join(statements)


def schema_sql(kinds: Iterable[type[Record]] = records.ALL) -> str:
    """The whole schema, tables in the order of their names."""
    tables = sorted((Codec(kind) for kind in kinds), key=lambda codec: codec.table.name)
    return OWN + "".join(table_sql(codec) for codec in tables)
