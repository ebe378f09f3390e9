"""The issuer `postgresql-user` keeps the laws, on a real server, as a role that is no superuser."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

import asyncpg
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_issuer
from broker.upstream.conformance import BadTerms, IssuerLaws, IssuerWorld
from broker.upstream.port import Site


@dataclass(kw_only=True)
class LoginsWorld(IssuerWorld):
    """Logins that are part of one role. group: its name."""

    postgres: Any
    group: str

    async def works(self, value: Secret) -> bool:
        content = value.reveal()
        try:
            if content.startswith(b"{"):
                named = json.loads(content)
                connection = await asyncpg.connect(database=named.pop("dbname"), ssl=False, **named)
            else:
                connection = await asyncpg.connect(content.decode(), ssl=False)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
            return False
        await connection.close()
        return True

    async def live(self) -> int:
        counted = self.postgres.sql(
            "postgres",
            "SELECT count(*) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid "
            f"JOIN pg_roles r ON r.oid = m.member WHERE g.rolname = '{self.group}' AND r.rolcanlogin",
        )
        return int(counted) - 1


class TestPostgresqlUser(IssuerLaws):
    """Values in JSON."""

    name: ClassVar[str] = "postgresql-user"

    form: ClassVar[str] = "json"

    @pytest.fixture
    async def world(self, postgres: Any) -> AsyncIterator[IssuerWorld]:
        """A role that logins become part of, and another that makes them."""
        prefix = f"u{secrets.token_hex(4)}"
        admin, group, other = (f"{prefix}_{part}" for part in ("admin", "app", "other"))
        password = secrets.token_urlsafe(16)
        postgres.sql("postgres", f"CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD '{password}'")
        postgres.sql("postgres", f"CREATE ROLE {group}; CREATE ROLE {other} LOGIN PASSWORD '{password}'")
        postgres.sql("postgres", f"GRANT {group} TO {admin} WITH ADMIN OPTION")
        settings = {
            "host": "127.0.0.1",
            "port": str(postgres.port),
            "dbname": "postgres",
            "user": admin,
            "roles": group,
            "format": self.form,
        }
        named = {"password": "laws/password"}

        def bad(names: str, **changed: str) -> BadTerms:
            return BadTerms(names=names, settings={**settings, **changed}, credentials=named)

        bystander = json.dumps(
            {"host": "127.0.0.1", "port": postgres.port, "dbname": "postgres", "user": other, "password": password}
        )
        async with open_issuer("postgresql-user", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as issuer:
            yield LoginsWorld(
                postgres=postgres,
                group=group,
                issuer=issuer,
                settings=settings,
                credentials={"password": Secret(password.encode())},
                wrong_credentials={"password": Secret(b"not-the-password-of-anybody")},
                bystander=Secret(bystander.encode()),
                bad_terms=(
                    bad("host", host=""),
                    bad("roles", roles=""),
                    bad("roles", roles=f"{group},{group}"),
                    bad("user", roles=admin),
                    bad("role", roles="x" * 64),
                    bad("connections", connections="-2"),
                    bad("drop_owned", drop_owned="true", reassign_to=group),
                    bad("reassign_to", reassign_to="postgres"),
                    bad("dbname", dbname="postgres\0options\0-c role=postgres"),
                    bad("format", format="yaml"),
                    bad("colour", colour="red"),
                    BadTerms(names="password", settings=settings, credentials={}),
                ),
            )


class TestPostgresqlUserAsUri(TestPostgresqlUser):
    """The same, with values as connection URIs."""

    form: ClassVar[str] = "dsn"
