"""The rotator `postgresql-role` keeps the laws, on a real server, as a role that is no superuser."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.conformance import BadTerms, RotatorLaws, RotatorWorld
from broker.upstream.port import Site


@dataclass(kw_only=True)
class RolesWorld(RotatorWorld):
    """Two roles of a server. prefix: of the names of all roles of this world."""

    postgres: Any
    prefix: str

    async def works(self, value: Secret) -> bool:
        try:
            connection = await self._log_in(value)
        except asyncpg.InvalidPasswordError:
            return False
        await connection.close()
        return True

    async def live(self) -> int:
        counted = self.postgres.sql(
            "postgres",
            f"SELECT count(*) FROM pg_authid WHERE rolname IN ('{self.prefix}_a', '{self.prefix}_b')"
            " AND rolpassword IS NOT NULL",
        )
        return int(counted)

    def wrong(self, value: Secret) -> Secret:
        content = value.reveal()
        if content.startswith(b"{"):
            return Secret(json.dumps({**json.loads(content), "password": "never-was-one"}).encode())
        parts = urlsplit(content.decode())
        netloc = f"{parts.username}:never-was-one@{parts.netloc.rpartition('@')[2]}"
        return Secret(urlunsplit(parts._replace(netloc=netloc)).encode())

    async def _log_in(self, value: Secret) -> Any:
        """Log in as whoever uses the value would."""
        content = value.reveal()
        if content.startswith(b"{"):
            named = json.loads(content)
            return await asyncpg.connect(database=named.pop("dbname"), ssl=False, **named)
        return await asyncpg.connect(content.decode(), ssl=False)


@asynccontextmanager
async def roles_world(
    postgres: Any, *, first: bool, form: Literal["json", "dsn"], made: bool = True
) -> AsyncIterator[RolesWorld]:
    """Two roles, and a third that changes them. made: False leaves it to the rotator to make the two."""
    prefix = f"r{secrets.token_hex(4)}"
    admin, group, one, two, other = (f"{prefix}_{part}" for part in ("admin", "app", "a", "b", "other"))
    password = secrets.token_urlsafe(16)
    postgres.sql("postgres", f"CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD '{password}'")
    postgres.sql("postgres", f"CREATE ROLE {group}; CREATE ROLE {other} LOGIN PASSWORD '{password}'")
    if made:
        postgres.sql("postgres", f"CREATE ROLE {one} LOGIN; CREATE ROLE {two} LOGIN")
    if not first:
        postgres.sql("postgres", f"ALTER ROLE {one} PASSWORD '{password}'")
    settings = {
        "host": "127.0.0.1",
        "port": str(postgres.port),
        "dbname": "postgres",
        "user": admin,
        "roles": f"{one},{two}",
        "format": form,
    }
    if not made:
        settings["member_of"] = group
    named = {"password": "laws/password"}

    def bad(names: str, **changed: str) -> BadTerms:
        return BadTerms(names=names, settings={**settings, **changed}, credentials=named)

    def login(role: str) -> Secret:
        if form == "json":
            told = {"host": "127.0.0.1", "port": postgres.port, "dbname": "postgres", "user": role}
            return Secret(json.dumps({**told, "password": password}).encode())
        return Secret(f"postgresql://{role}:{password}@127.0.0.1:{postgres.port}/postgres".encode())

    async with open_rotator("postgresql-role", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as rotator:
        yield RolesWorld(
            postgres=postgres,
            prefix=prefix,
            rotator=rotator,
            settings=settings,
            credentials={"password": Secret(password.encode())},
            wrong_credentials={"password": Secret(b"not-the-password-of-anybody")},
            current=None if first else login(one),
            bystander=login(other),
            bad_terms=(
                bad("host", host=""),
                bad("port", port="70000"),
                bad("roles", roles=one),
                bad("roles", roles=f"{one},{one}"),
                bad("role", roles=f"{one},{'x' * 64}"),
                bad("user", user=one),
                bad("member_of", member_of=one),
                bad("format", format="yaml"),
                bad("colour", colour="red"),
                BadTerms(
                    names="dbname",
                    settings={name: text for name, text in settings.items() if name != "dbname"},
                    credentials=named,
                ),
                BadTerms(names="password", settings=settings, credentials={}),
            ),
        )


class TestPostgresqlRole(RotatorLaws):
    """Roles that are there, and values in JSON."""

    name: ClassVar[str] = "postgresql-role"

    form: ClassVar[Literal["json", "dsn"]] = "json"

    @pytest.fixture
    async def world(self, postgres: Any) -> AsyncIterator[RotatorWorld]:
        """The first of two roles is in use."""
        async with roles_world(postgres, first=False, form=self.form) as world:
            yield world

    @pytest.fixture
    async def first_world(self, postgres: Any) -> AsyncIterator[RotatorWorld]:
        """Neither of the roles is there yet."""
        async with roles_world(postgres, first=True, form=self.form, made=False) as world:
            yield world


class TestPostgresqlRoleAsUri(TestPostgresqlRole):
    """The same, with values as connection URIs."""

    form: ClassVar[Literal["json", "dsn"]] = "dsn"
