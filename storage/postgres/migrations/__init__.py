"""Bring a database to the newest schema, one numbered SQL file after another, under an advisory lock.

A released file is never edited: what it made is out there. Expand first (add), contract in a later release (remove), so
that replicas of the release before go on working: each file says which schema's release can still read what it makes.
"""

from __future__ import annotations

from importlib import resources

import asyncpg

from storage.errors import NewerSchema, NotOurs, Refused, Unfinished

MIGRATIONS = (("0001_records.sql", 1), ("0002_replicas.sql", 1))
"""In order; the n-th makes schema version n. Beside each: the oldest schema version whose release works with it."""

NEWEST = len(MIGRATIONS)
_SCHEMA = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'tokenbroker'"
LOCK = 0x746B6272
"""ASCII "tkbr": the advisory lock that one migrating replica holds."""
TABLE_LOCK_S = 2.0
"""How long a migration waits for a table, and brokers behind it; then it is undone, and may be tried again."""


async def migrate(connection: asyncpg.Connection, shown: str, *, filling: bool = False) -> int:
    """Apply what is missing, all or nothing; the version before (0: the database held no schema of ours).

    filling: whether it may be a database whose filling was begun.
    NotOurs, NewerSchema, Unfinished: the database must not be touched, and was not. Refused: the role may not migrate.
    asyncpg.PostgresError: as PostgreSQL says.
    """
    before = await version_of(connection, shown, filling=filling)
    if before >= NEWEST:
        return before
    await _check_may_migrate(connection, shown, before)
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        # Whoever waits for a table holds up all who come after, so a table that is in use is not waited for as long.
        await connection.execute(f"SET LOCAL lock_timeout = '{TABLE_LOCK_S:g}s'")
        # Again, inside the lock: another replica may have migrated while this one waited for it.
        before = await version_of(connection, shown, filling=filling)
        for number in range(before, NEWEST):
            name, oldest = MIGRATIONS[number]
            if number == 0 and await connection.fetchval(_SCHEMA) is None:
                await connection.execute("CREATE SCHEMA tokenbroker")
            await connection.execute(resources.files(__name__).joinpath(name).read_text("utf-8"))
            await connection.execute("DELETE FROM tokenbroker.schema_version")
            await connection.execute("INSERT INTO tokenbroker.schema_version VALUES ($1, $2)", number + 1, oldest)
        await connection.execute("SELECT tokenbroker.give_rights()")
    return before


async def _check_may_migrate(connection: asyncpg.Connection, shown: str, version: int) -> None:
    may = await connection.fetchrow(
        "SELECT current_user AS role, CASE WHEN n.oid IS NULL "
        "THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') "
        "ELSE pg_catalog.pg_has_role(n.nspowner, 'USAGE') END AS may "
        "FROM (VALUES (1)) AS one LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'tokenbroker'"
    )
    if not may["may"]:
        raise Refused(
            f"{shown} has schema {version}, this release needs {NEWEST}, and the role {may['role']} may not migrate; "
            "run once, as the role that owns it: python -m storage.postgres postgresql://tokenbroker_migrator@…"
        )


async def version_of(connection: asyncpg.Connection, shown: str, *, filling: bool = False) -> int:
    """The schema version; 0: there is none. filling: whether it may be a database whose filling was begun.

    NotOurs: another application's. NewerSchema: too new to be read. Unfinished: it is being filled.
    """
    # One statement: between two, another replica may have made it all.
    found = await connection.fetchrow(
        "SELECT count(*) AS relations, count(*) FILTER (WHERE relname = 'schema_version') AS ours, "
        "count(*) FILTER (WHERE relname = 'loading') AS loading "
        "FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'tokenbroker'"
    )
    if not found["ours"]:
        if found["relations"]:
            raise NotOurs(f"{shown}: its schema tokenbroker is another application's; name another database")
        return 0
    row = await connection.fetchrow("SELECT version, oldest_reader FROM tokenbroker.schema_version")
    if row is None:
        raise NotOurs(f"{shown}: its schema tokenbroker is half made; restore it, or name another database")
    version, oldest = int(row["version"]), int(row["oldest_reader"])
    if oldest > NEWEST:
        raise NewerSchema(
            f"{shown} has schema {version}, and this release reads up to {NEWEST}; run the release that migrated it"
        )
    if found["loading"] and not filling:
        raise Unfinished(f"{shown}: {Unfinished.__doc__}")
    return version
