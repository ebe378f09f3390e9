"""The issuer `postgresql-user` before people who own things in the database: what they can make it do, and what not."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_issuer
from broker.upstream.errors import Refused
from broker.upstream.port import Issuer, Site, Wanted


class Place:
    """A database that the role `group`, of which each login becomes a part, owns."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.database = server.create()
        self.admin, self.group = f"admin_{self.database}", f"group_{self.database}"
        self.password = secrets.token_urlsafe(16)
        self.lease = secrets.token_hex(16)

    def found(self) -> None:
        self.sql(f"CREATE ROLE {self.admin} LOGIN CREATEROLE PASSWORD '{self.password}'")
        self.sql(f"CREATE ROLE {self.group}; GRANT {self.group} TO {self.admin} WITH ADMIN OPTION")
        self.sql(f"ALTER DATABASE {self.database} OWNER TO {self.group}; ALTER SCHEMA public OWNER TO {self.group}")

    def sql(self, text: str) -> str:
        told: str = self.server.sql(self.database, text)
        return told

    def wanted(self, **changed: str) -> Wanted:
        settings = {
            "host": "127.0.0.1",
            "port": str(self.server.port),
            "dbname": self.database,
            "user": self.admin,
            "roles": self.group,
        }
        return Wanted(
            token="db/reports",
            settings={**settings, **changed},
            credentials={"password": Secret(self.password.encode())},
            lease=self.lease,
            worker="ci-1",
            groups=(),
            ttl_s=60,
        )

    async def log_in(self, value: Secret) -> Any:
        named = json.loads(value.reveal())
        return await asyncpg.connect(database=named.pop("dbname"), ssl=False, **named)

    def logins(self) -> int:
        return int(self.sql(f"SELECT count(*) FROM pg_roles WHERE rolname LIKE '%{self.lease}'"))


@pytest.fixture
async def place(postgres: Any) -> Place:
    made: Place = await asyncio.to_thread(Place, postgres)
    await asyncio.to_thread(made.found)
    return made


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with open_issuer("postgresql-user", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as opened:
        yield opened


async def test_who_owns_the_database_gets_nothing_called_by_the_maker_of_logins(place: Place, issuer: Issuer) -> None:
    """A worker's functions, named as the server's and put before them for everybody, are not called as the maker."""
    wanted = place.wanted()
    issued = await issuer.issue(wanted)
    worker = await place.log_in(issued.value)
    await worker.execute(
        f"SET ROLE {place.group}; CREATE SCHEMA evil; CREATE TABLE evil.called (who text); "
        "GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.called TO PUBLIC; "
        "CREATE FUNCTION evil.shobj_description(oid, name) RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO evil.called VALUES (session_user); SELECT pg_catalog.shobj_description($1, $2)$$; "
        "CREATE FUNCTION evil.pg_terminate_backend(int) RETURNS bool LANGUAGE sql AS "
        "$$INSERT INTO evil.called VALUES (session_user); SELECT true$$; "
        f"ALTER DATABASE {place.database} SET search_path TO evil, pg_catalog"
    )
    await issuer.revoke(wanted, issued.handle, issued.value)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await worker.fetchval("SELECT 1")
    assert await asyncio.to_thread(place.sql, "SELECT count(*) FROM evil.called") == "0"
    assert await asyncio.to_thread(place.logins) == 0


@pytest.mark.parametrize("setting", ["default_transaction_read_only TO on", "role TO {group}"])
async def test_who_owns_the_database_keeps_no_login_by_what_he_sets(place: Place, issuer: Issuer, setting: str) -> None:
    """What is set for all who connect to the database hinders nobody from ending a login there."""
    wanted = place.wanted()
    issued = await issuer.issue(wanted)
    worker = await place.log_in(issued.value)
    told = setting.format(group=place.group)
    await worker.execute(f"SET ROLE {place.group}; ALTER DATABASE {place.database} SET {told}")
    await issuer.revoke(wanted, issued.handle, issued.value)
    assert await asyncio.to_thread(place.logins) == 0
    worker.terminate()


@pytest.mark.parametrize(("more", "left"), [({"reassign_to": "{group}"}, "{group}"), ({"drop_owned": "true"}, "")])
async def test_what_a_login_leaves_behind_is_kept_or_dropped(
    place: Place, issuer: Issuer, more: dict[str, str], left: str
) -> None:
    """As the settings say; what others own there stays theirs."""
    await asyncio.to_thread(place.sql, "CREATE TABLE others (what text)")
    wanted = place.wanted(**{name: text.format(group=place.group) for name, text in more.items()})
    issued = await issuer.issue(wanted)
    worker = await place.log_in(issued.value)
    await worker.execute('CREATE TABLE mine (what text); CREATE VIEW "a "" b" AS SELECT * FROM mine')
    await worker.close()
    await issuer.revoke(wanted, issued.handle, issued.value)
    owner = await asyncio.to_thread(place.sql, "SELECT tableowner FROM pg_tables WHERE tablename = 'mine'")
    assert owner == left.format(group=place.group)
    assert await asyncio.to_thread(place.sql, "SELECT tableowner FROM pg_tables WHERE tablename = 'others'") != owner
    assert await asyncio.to_thread(place.logins) == 0


async def test_a_role_that_is_part_of_a_mighty_one_is_refused(place: Place, issuer: Issuer) -> None:
    """Workers would only have to SET ROLE: no login is made."""
    await asyncio.to_thread(
        place.sql,
        f"CREATE ROLE between_{place.database}; CREATE ROLE mighty_{place.database} CREATEROLE; "
        f"GRANT mighty_{place.database} TO between_{place.database}; GRANT between_{place.database} TO {place.group}",
    )
    with pytest.raises(Refused, match="part of"):
        await issuer.issue(place.wanted())
    assert await asyncio.to_thread(place.logins) == 0
