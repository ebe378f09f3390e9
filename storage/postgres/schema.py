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

SWEPT = "WITH (autovacuum_vacuum_scale_factor = 0.02)"
"""For tables whose rows come and go: their dead rows are cleared at a fiftieth of the table, not at a fifth."""

OWN = """\
CREATE TABLE tokenbroker.schema_version (version integer NOT NULL, oldest_reader integer NOT NULL);
CREATE TABLE tokenbroker.health (checks bigint NOT NULL);
INSERT INTO tokenbroker.health VALUES (0);
CREATE TABLE tokenbroker.feed (
  position bigint PRIMARY KEY,
  "table" text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
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

GUARDS = """\
CREATE FUNCTION tokenbroker.only_closing() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF OLD.closed_at IS NOT NULL OR to_jsonb(OLD) - 'rev' - 'closed_at' <> to_jsonb(NEW) - 'rev' - 'closed_at' THEN
    RAISE EXCEPTION 'a log on record may only be closed' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER only_closing BEFORE UPDATE ON tokenbroker.audit_log
  FOR EACH ROW EXECUTE FUNCTION tokenbroker.only_closing();
CREATE FUNCTION tokenbroker.give_rights() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tokenbroker_broker') THEN
    GRANT USAGE ON SCHEMA tokenbroker TO tokenbroker_broker;
    REVOKE ALL ON ALL TABLES IN SCHEMA tokenbroker FROM tokenbroker_broker;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tokenbroker TO tokenbroker_broker;
    REVOKE UPDATE, DELETE ON tokenbroker.audit_block, tokenbroker.checkpoint FROM tokenbroker_broker;
    REVOKE DELETE ON tokenbroker.audit_log, tokenbroker.audit_head FROM tokenbroker_broker;
    REVOKE UPDATE ON tokenbroker.feed FROM tokenbroker_broker;
    REVOKE INSERT, DELETE ON tokenbroker.feed_head, tokenbroker.health FROM tokenbroker_broker;
    REVOKE INSERT, UPDATE, DELETE ON tokenbroker.schema_version FROM tokenbroker_broker;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tokenbroker_auditor') THEN
    GRANT USAGE ON SCHEMA tokenbroker TO tokenbroker_auditor;
    REVOKE ALL ON ALL TABLES IN SCHEMA tokenbroker FROM tokenbroker_auditor;
    GRANT SELECT ON tokenbroker.audit_block, tokenbroker.audit_log, tokenbroker.checkpoint,
      tokenbroker.schema_version TO tokenbroker_auditor;
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION tokenbroker.give_rights() FROM PUBLIC;
"""
"""What keeps the audit log from being rewritten, beside its hashes.

only_closing: of an audit log's row only the revision moves, until the log is closed, whoever is connected.
give_rights: what the roles of config/postgres/roles.sql may do with the tables that there are; every migration ends
with it. Nothing here runs with the rights of its owner.
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
    swept = f" {SWEPT}" if table.due else ""
    statements = [f"CREATE TABLE {qualified(table.name)} (\n" + ",\n".join(lines) + f"\n){swept};\n"]
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
    return OWN + "".join(table_sql(codec) for codec in tables) + GUARDS
