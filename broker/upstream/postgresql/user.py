"""The issuer `postgresql-user`: a login role for each lease, part of the roles that the settings name, then dropped.

A role is known by its name and by its comment, which names the lease; one without that comment is never touched. The
server gets a SCRAM verifier and no password. VALID UNTIL ends the login also where nobody comes to drop the role.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from broker.secret import Secret
from broker.upstream.errors import BadSettings, Failed, Refused
from broker.upstream.port import Issued, Issuer, Site, Wanted
from broker.upstream.postgresql.login import CONTENT_TYPES, Format, Login, write_login
from broker.upstream.postgresql.scram import new_password, scram_verifier
from broker.upstream.postgresql.server import ServerTerms, check_server, connected, quoted
from broker.upstream.terms import credential_text, read_terms, require_credentials

PASSWORD = "password"  # noqa: S105 - the name of the credential
"""The credential with which the role of the setting `user` logs in."""
PREFIX = "tokenbroker_lease_"
ROLES_MAX = 16
SLACK = timedelta(minutes=1)
"""By how much VALID UNTIL outlives the lease: the server's clock may be behind."""
_LEASE_ID = re.compile(r"[0-9a-f]{32}")
_ENDS_S = 3.0
_LOOK_S = 0.05


class UserTerms(ServerTerms, frozen=True, kw_only=True):
    """Settings. roles: what each login is a member of, as A,B. connections: how many each may have; -1: any number.

    reassign_to: which of the roles gets what a login leaves behind. drop_owned: that is dropped instead. Neither: a
    login that owns something can log in no more, and stays until somebody has cleared up.
    """

    roles: str
    format: Format = "json"
    connections: Annotated[int, msgspec.Meta(ge=-1, le=10_000)] = -1
    reassign_to: str = ""
    drop_owned: bool = False

    @property
    def granted(self) -> list[str]:
        """The names of the roles. BadSettings: none, or too many."""
        names = [name.strip() for name in self.roles.split(",")]
        if not 1 <= len(names) <= ROLES_MAX or len(set(names)) < len(names) or not all(names):
            raise BadSettings(f"the setting roles must name 1 to {ROLES_MAX} roles, as A,B, each once")
        return names


@asynccontextmanager
async def open_postgresql_user(site: Site) -> AsyncIterator[Issuer]:
    """The issuer; connections are made by each call."""
    yield PostgresqlUser(site)


class PostgresqlUser:
    """As the port says."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        terms = read_terms(UserTerms, settings)
        check_server(terms, self._site)
        for name in (*terms.granted, terms.user):
            quoted(name)
        if terms.user in terms.granted:
            raise BadSettings("the setting roles names user, who makes the logins; workers must not become that")
        if terms.reassign_to:
            if terms.reassign_to not in terms.granted:
                raise BadSettings(
                    "the setting reassign_to must name one of roles: with what a login leaves behind, a function or a "
                    "view, the next one could act as whoever got it"
                )
            if terms.drop_owned:
                raise BadSettings("the settings reassign_to and drop_owned exclude each other; leave one out")
        require_credentials(credentials, needed=(PASSWORD,))

    def handle(self, wanted: Wanted) -> Mapping[str, str]:
        """As the port says: the name of the role follows from the lease."""
        spelt = wanted.lease
        if _LEASE_ID.fullmatch(spelt) is None:
            spelt = hashlib.sha256(spelt.encode()).hexdigest()[:32]
        return {"role": PREFIX + spelt}

    async def issue(self, wanted: Wanted) -> Issued:
        """As the port says. What an attempt before made gets another password."""
        terms = read_terms(UserTerms, wanted.settings)
        handle = self.handle(wanted)
        login = Login(user=handle["role"], password=new_password())
        until = self._site.clock.now() + timedelta(seconds=wanted.ttl_s) + SLACK
        options = (
            f"LOGIN PASSWORD '{scram_verifier(login.password)}' VALID UNTIL '{until.isoformat()}' "
            f"CONNECTION LIMIT {terms.connections}"
        )
        role = quoted(login.user)
        async with _administering(terms, wanted, self._site) as connection, connection.transaction():
            await _check_harmless(connection, terms.granted)
            if not await _is_ours(connection, login.user, wanted):
                await connection.execute(f"CREATE ROLE {role} {options}")
                await connection.execute(f"COMMENT ON ROLE {role} IS {_literal(_mark(wanted))}")
            else:
                await connection.execute(f"ALTER ROLE {role} {options}")
            await connection.execute(f"GRANT {', '.join(map(quoted, terms.granted))} TO {role}")
        return Issued(
            value=write_login(login, terms, terms.format),
            content_type=CONTENT_TYPES[terms.format],
            ends_at=until,
            handle=handle,
        )

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        """As the port says. First nobody can log in any more, then who is logged in is cut off, then the role goes."""
        terms = read_terms(UserTerms, wanted.settings)
        name = handle.get("role", "")
        if not name.startswith(PREFIX):
            raise Refused(f"the handle names no role that begins with {PREFIX}; such a one is never dropped")
        async with _administering(terms, wanted, self._site) as connection:
            if not await _is_ours(connection, name, wanted):
                return
            await connection.execute(f"ALTER ROLE {quoted(name)} NOLOGIN PASSWORD NULL")
            if not await connection.fetchval("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"):
                # Who makes a role is not part of it, and only who is may end its sessions or give away what it owns.
                await connection.execute(f"GRANT {quoted(name)} TO CURRENT_USER")
            await self._cut_off(connection, name)
            async with connection.transaction():
                await _drop(connection, name, terms)

    async def _cut_off(self, connection: Any, name: str) -> None:
        """End the sessions of the role. Failed: one is still there."""
        until = self._site.clock.monotonic() + _ENDS_S
        while await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1", name
        ):
            if self._site.clock.monotonic() > until:
                raise Failed(f"sessions of the role {name} do not end; it is tried again")
            await self._site.clock.sleep(_LOOK_S)


@asynccontextmanager
async def _administering(terms: UserTerms, wanted: Wanted, site: Site) -> AsyncIterator[Any]:
    password = credential_text(wanted, PASSWORD)
    async with connected(terms, user=terms.user, password=password, site=site) as connection:
        yield connection


def _mark(wanted: Wanted) -> str:
    return f"tokenbroker: lease {wanted.lease} of {wanted.token}"


def _literal(text: str) -> str:
    """Text as SQL spells it. COMMENT takes no parameter; without a backslash there is one way to read this."""
    assert "\\" not in text
    return "'" + text.replace("'", "''") + "'"


async def _is_ours(connection: Any, name: str, wanted: Wanted) -> bool:
    """Whether there is the role of this lease. Refused: there is one of that name that is somebody else's."""
    found = await connection.fetchrow(
        "SELECT shobj_description(oid, 'pg_authid') AS mark FROM pg_catalog.pg_roles WHERE rolname = $1", name
    )
    if found is not None and found["mark"] != _mark(wanted):
        raise Refused(f"the role {name} has not the comment of this lease, so somebody else made it; it is left alone")
    return found is not None


async def _check_harmless(connection: Any, names: list[str]) -> None:
    """Refused: a role is missing, or whoever is part of it could do anything, by itself or by what it is part of."""
    rows = await connection.fetch(
        "SELECT rolname, EXISTS (SELECT FROM pg_catalog.pg_roles AS other WHERE (other.rolsuper OR other.rolcreaterole "
        "OR other.rolreplication) AND pg_has_role(named.oid, other.oid, 'MEMBER')) AS mighty "
        "FROM pg_catalog.pg_roles AS named WHERE rolname = ANY($1)",
        names,
    )
    found = {row["rolname"]: row["mighty"] for row in rows}
    for name in names:
        if found.get(name, True):
            raise Refused(
                f"the role {name} of the setting roles is missing, or is, or is part of, a superuser or one that makes "
                "roles or replicates; name one that may do what workers are to do"
            )


async def _drop(connection: Any, name: str, terms: UserTerms) -> None:
    role = quoted(name)
    if terms.reassign_to:
        await connection.execute(f"REASSIGN OWNED BY {role} TO {quoted(terms.reassign_to)}")
    if terms.reassign_to or terms.drop_owned:
        # Behind a REASSIGN only privileges are left to drop.
        await connection.execute(f"DROP OWNED BY {role}")
    await connection.execute(f"DROP ROLE {role}")
