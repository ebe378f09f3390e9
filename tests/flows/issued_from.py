"""A database of a real PostgreSQL server whose logins a broker makes, one for each lease, and ways to look at it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg

from broker.admin.asked import NewIssuer

ROOT = "admin:root"
TOKEN = "db/reports"
PREFIX = "tokenbroker_lease_"


class Upstream:
    """The database, as the broker and its workers reach it: over `host` and `port`, which may be another's."""

    def __init__(self, server: Any, database: str) -> None:
        self.server = server
        self.database = database
        self.host = "127.0.0.1"
        self.port = server.port
        self.maker = f"maker_{database}"
        self.readers = f"readers_{database}"

    def sql(self, text: str) -> str:
        done: str = self.server.sql(self.database, text)
        return done

    def found(self) -> None:
        """A role that makes logins as little privileged as it can be, and one that they become part of."""
        self.sql(f"CREATE ROLE {self.maker} LOGIN CREATEROLE PASSWORD '{self.server.password}'")
        self.sql(f"CREATE ROLE {self.readers}")
        self.sql(f"GRANT {self.readers} TO {self.maker} WITH ADMIN OPTION")
        self.sql(f"CREATE TABLE sold (what text); GRANT SELECT, INSERT ON sold TO {self.readers}")
        self.sql("INSERT INTO sold VALUES ('bread')")

    def settings(self, **changed: str) -> dict[str, str]:
        given = {
            "host": self.host,
            "port": str(self.port),
            "dbname": self.database,
            "user": self.maker,
            "roles": self.readers,
        }
        return {**given, **changed}

    async def attach(self, house: Any, *, token: str = TOKEN, bounds: tuple[int, int] = (100, 100), **more: str) -> Any:
        """Have the token's values made here."""
        if await house.services.book.find(f"{token}-maker") is None:
            await house.put(f"{token}-maker", self.server.password.encode())
        new = NewIssuer(
            token=token,
            issuer="postgresql-user",
            settings=self.settings(**more),
            credentials={"password": f"{token}-maker"},
            leases_max=bounds[0],
            worker_leases_max=bounds[1],
        )
        record = await house.services.issuers.set(new, actor=ROOT)
        await house.settled()
        return record

    async def logins(self) -> set[str]:
        """The roles of this database's readers that a broker made."""
        text = await asyncio.to_thread(
            self.sql,
            "SELECT m.rolname FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member JOIN pg_roles r "
            f"ON r.oid = a.roleid WHERE r.rolname = '{self.readers}' AND m.rolname LIKE '{PREFIX}%'",
        )
        return set(text.split())

    async def log_in(self, value: str) -> Any:
        """A connection with a leased value. asyncpg.PostgresError: it does not work."""
        told = json.loads(value)
        return await asyncpg.connect(
            host=told["host"],
            port=told["port"],
            database=told["dbname"],
            user=told["user"],
            password=told["password"],
            timeout=20,
        )

    async def works(self, value: str) -> bool:
        """Whether a leased value logs in, and may read."""
        try:
            connection = await self.log_in(value)
        except asyncpg.PostgresError:
            return False
        try:
            return bool(await connection.fetchval("SELECT what FROM sold") == "bread")
        finally:
            await connection.close()

    def user(self, value: str) -> str:
        named: str = json.loads(value)["user"]
        return named
