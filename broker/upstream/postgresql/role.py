"""The rotator `postgresql-role`: two login roles take turns, so that the one in use is not touched until it is not.

`create` makes a password for the role that is not in use, `set` gives it to the server, `finish` takes the other role's
password away. Roles that the policy does not name, superusers, and the role that does the work are never changed.
Nothing has to be remembered between the steps: the value names its role.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from broker.secret import Secret
from broker.upstream.errors import BadSettings, Failed, Refused, UpstreamError
from broker.upstream.port import Made, Rotation, Rotator, Site
from broker.upstream.postgresql.login import CONTENT_TYPES, Format, Login, read_login, write_login
from broker.upstream.postgresql.scram import new_password, scram_verifier
from broker.upstream.postgresql.server import ServerTerms, check_server, connected, quoted
from broker.upstream.terms import credential_text, read_terms, require_credentials

PASSWORD = "password"  # noqa: S105 - the name of the credential
"""The credential with which the role of the setting `user` logs in."""


class RoleTerms(ServerTerms, frozen=True, kw_only=True):
    """Settings. roles: the two, as A,B. member_of: a role that is missing is made, as a member of this one; empty: both
    must be there. end_sessions: whether `finish` and `abandon` also end what is still logged in with the password.
    """

    roles: str
    member_of: str = ""
    format: Format = "json"
    end_sessions: bool = False

    @property
    def pair(self) -> tuple[str, str]:
        """The names of the two roles. BadSettings: they are not two."""
        names = [name.strip() for name in self.roles.split(",")]
        if len(names) != 2 or names[0] == names[1] or not all(names):
            raise BadSettings("the setting roles must name two roles that take turns, such as app_a,app_b")
        return names[0], names[1]


@asynccontextmanager
async def open_postgresql_role(site: Site) -> AsyncIterator[Rotator]:
    """The rotator; connections are made by each call."""
    yield PostgresqlRole(site)


class PostgresqlRole:
    """As the port says."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        terms = read_terms(RoleTerms, settings)
        check_server(terms, self._site)
        for name in (*terms.pair, terms.user):
            quoted(name)
        if terms.user in terms.pair:
            raise BadSettings("the setting user names one of roles; a role cannot take its own password away")
        if terms.member_of and quoted(terms.member_of) in map(quoted, (*terms.pair, terms.user)):
            raise BadSettings("the setting member_of must name another role than roles and user do")
        require_credentials(credentials, needed=(PASSWORD,))

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """As the port says. The server learns nothing yet, so that an attempt before left nothing there.

        BadSettings: the value in use names no role, so that nobody knows which of the two is free.
        """
        terms = read_terms(RoleTerms, rotation.settings)
        first, second = terms.pair
        in_use = None if current is None else read_login(current)
        if current is not None and in_use is None:
            raise BadSettings(
                'the value in use names no role; put it as {"user": "…", "password": "…"} or as postgresql://…'
            )
        free = second if in_use is not None and in_use.user == first else first
        login = Login(user=free, password=new_password())
        return Made(
            value=write_login(login, terms, terms.format),
            content_type=CONTENT_TYPES[terms.format],
            notes={"role": free},
        )

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """As the port says. Refused: the role is the one in use, is missing, or is not to be touched."""
        terms = read_terms(RoleTerms, rotation.settings)
        login = _own(terms, new)
        in_use = None if current is None else read_login(current)
        if in_use is not None and in_use.user == login.user:
            raise Refused(f"the role {login.user} is in use; begin another rotation, which takes the other one")
        async with _administering(terms, rotation, self._site) as connection, connection.transaction():
            await _ready(connection, login.user, terms)
            verifier = scram_verifier(login.password)
            await connection.execute(f"ALTER ROLE {quoted(login.user)} LOGIN PASSWORD '{verifier}'")

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """As the port says: logs in with it."""
        terms = read_terms(RoleTerms, rotation.settings)
        login = _own(terms, new)
        async with connected(
            terms, user=login.user, password=login.password, site=self._site, refused=Refused
        ) as connection:
            await connection.fetchval("SELECT 1")

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """As the port says. A former value of a role that the policy does not name is left alone."""
        before = None if former is None else read_login(former)
        after = read_login(new)
        # One role cannot have two passwords: setting the new one has ended the former.
        if before is not None and (after is None or after.user != before.user):
            await self._end(rotation, before)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """As the port says. What was never set has no password to take away, and taking it away harms nobody."""
        login = None if new is None else read_login(new)
        if login is not None:
            await self._end(rotation, login)

    async def _end(self, rotation: Rotation, login: Login) -> None:
        """Take a role's password away, if it is this one: somebody may have given the role another by hand since."""
        terms = read_terms(RoleTerms, rotation.settings)
        if login.user not in terms.pair or not await _may_be_taken(terms, login, self._site):
            return
        async with _administering(terms, rotation, self._site) as connection, connection.transaction():
            if await _exists(connection, login.user):
                await connection.execute(f"ALTER ROLE {quoted(login.user)} PASSWORD NULL")
                if terms.end_sessions:
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", login.user
                    )


async def _may_be_taken(terms: RoleTerms, login: Login, site: Site) -> bool:
    """Whether the server takes a login, or cannot be asked in this way: then it counts as taken."""
    try:
        async with connected(terms, user=login.user, password=login.password, site=site, refused=Refused):
            return True
    except Refused:
        return False
    except UpstreamError:
        return True


@asynccontextmanager
async def _administering(terms: RoleTerms, rotation: Rotation, site: Site) -> AsyncIterator[Any]:
    password = credential_text(rotation, PASSWORD)
    async with connected(terms, user=terms.user, password=password, site=site) as connection:
        yield connection


def _own(terms: RoleTerms, value: Secret) -> Login:
    """The login of a value that `create` made. Failed: it did not; nothing may be done in the name of it."""
    login = read_login(value)
    if login is None or login.user not in terms.pair:
        raise Failed("the value is of no role that the setting roles names; begin another rotation")
    if not login.password.isascii() or not login.password.isprintable() or not login.password:
        raise Failed("the value has no password of printable ASCII; begin another rotation")
    return login


async def _exists(connection: Any, role: str) -> bool:
    """Whether there is such a role. Refused: it is a superuser, or the one that asks."""
    found = await connection.fetchrow(
        "SELECT rolsuper, rolname = current_user AS own FROM pg_catalog.pg_roles WHERE rolname = $1", role
    )
    if found is not None and (found["rolsuper"] or found["own"]):
        raise Refused(f"the role {role} is a superuser, or the one that does the work; it is never changed")
    return found is not None


async def _ready(connection: Any, role: str, terms: RoleTerms) -> None:
    """See that the role is there. Refused: it is not, and member_of does not say what to make."""
    if not await _exists(connection, role):
        if not terms.member_of:
            raise Refused(
                f"there is no role {role}; make it, or name in the setting member_of what it shall be part of"
            )
        await connection.execute(f"CREATE ROLE {quoted(role)} LOGIN IN ROLE {quoted(terms.member_of)}")
