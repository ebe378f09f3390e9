"""Ways to get a token: given in the environment, in a file that somebody keeps fresh, or by an AppRole login.

When to get another one is in `session`. Tokens appear in no message and no repr.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from kms.errors import BadKey, Denied
from kms.private_files import Stamp, read_private, stamp
from kms.transit.errors import Forbidden, Step
from kms.transit.server import Server
from kms.transit.uri import TransitUri

TOKEN_VARIABLE = "VAULT_TOKEN"  # noqa: S105 — the name of a variable, not a token
"""Where a token is looked for if the URI names no other way to log in."""
SECRET_BYTES_MAX = 8192
"""Largest token or secret id."""

REFUSED_S = 30.0
"""How long a refused token stands before it is looked up again."""
LOCKOUT_S = 16 * 60.0
"""How long a refused secret id stands before it is tried again. Servers count the refusals of an AppRole until 15
minutes have passed without one, and at five let nobody log in to it for as long, brokers with the right one included.
"""

_SECRET = re.compile(r"[!-~]{1,8192}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A token and what is known of it. Instants are the event loop's.

    ttl_s: from made_at; None where no end is known. may_look_up: it may ask the server about itself.
    ours: made by a login of ours, hence ours to revoke.
    """

    token: str = field(repr=False)
    made_at: float
    ttl_s: float | None
    renewable: bool
    may_look_up: bool
    ours: bool
    policies: tuple[str, ...]

    @property
    def ends_at(self) -> float | None:
        """When the token ends; None where that is not known."""
        return None if self.ttl_s is None else self.made_at + self.ttl_s


class Source(Protocol):
    """Where tokens come from."""

    def check(self) -> None:
        """Return if its file can be used; blocks on the disk. Raises BadKey."""
        ...

    def changed(self) -> bool:
        """Whether there is another token than at the last login, without asking the server."""
        ...

    @property
    def refused_s(self) -> float:
        """How long a refused login stands before another is tried with the same."""
        ...

    def mended(self) -> bool:
        """Whether its file was changed since the last try, so that another need not wait. One system call."""
        ...

    async def log_in(self) -> Login:
        """A token: a new one where there is one. Raises Unavailable, Denied, BadKey, OSError."""
        ...


class Nothing(msgspec.Struct):
    """An answer of which nothing is needed."""


class Auth(msgspec.Struct):
    """The part of an answer that holds a new or renewed token."""

    client_token: str
    lease_duration: int
    renewable: bool = False
    accessor: str = ""
    entity_id: str = ""
    policies: list[str] | None = None


class Authenticated(msgspec.Struct):
    """An answer with a token."""

    auth: Auth


class _Facts(msgspec.Struct):
    ttl: int
    expire_time: str | None = None
    renewable: bool = False
    policies: list[str] | None = None


class _LookedUp(msgspec.Struct):
    data: _Facts


class GivenToken:
    """The token of the environment; there is never another one."""

    refused_s = REFUSED_S

    def __init__(self, *, server: Server, token: str) -> None:
        self._server = server
        self._token = token

    def check(self) -> None:
        """As the protocol says: there is no file."""

    def changed(self) -> bool:
        """As the protocol says."""
        return False

    def mended(self) -> bool:
        """As the protocol says."""
        return False

    async def log_in(self) -> Login:
        """As the protocol says: the same token."""
        return await look_up(self._server, self._token)


class TokenFile:
    """A token in a private file, read again whenever the file changed."""

    refused_s = REFUSED_S

    def __init__(self, *, server: Server, path: Path) -> None:
        self._server = server
        self._path = path
        self._stamp: Stamp | None = None
        self._tried: Stamp | None = None

    def check(self) -> None:
        """As the protocol says."""
        _check_file(self._path)

    def changed(self) -> bool:
        """As the protocol says. One system call; a file that is gone has changed."""
        return stamp(self._path) != self._stamp

    def mended(self) -> bool:
        """As the protocol says."""
        return stamp(self._path) != self._tried

    async def log_in(self) -> Login:
        """As the protocol says: the token that the file holds."""
        # Taken before reading: a change during the reading leaves an older stamp, so the file is read once more.
        self._tried = seen = stamp(self._path)
        login = await look_up(self._server, await asyncio.to_thread(read_secret, self._path))
        self._stamp = seen
        return login


class AppRole:
    """Logs in with a role id and the secret id of a private file, which is read at each login."""

    refused_s = LOCKOUT_S

    def __init__(self, *, server: Server, mount: str, role_id: str, secret_id_file: Path) -> None:
        self._server = server
        self._mount = mount
        self._role_id = role_id
        self._secret_id_file = secret_id_file
        self._tried: Stamp | None = None

    def check(self) -> None:
        """As the protocol says."""
        _check_file(self._secret_id_file)

    def changed(self) -> bool:
        """As the protocol says; a new secret id makes no token stale."""
        return False

    def mended(self) -> bool:
        """As the protocol says."""
        return stamp(self._secret_id_file) != self._tried

    async def log_in(self) -> Login:
        """As the protocol says: a new token, with each login."""
        self._tried = stamp(self._secret_id_file)
        secret_id = await asyncio.to_thread(read_secret, self._secret_id_file)
        body = {"role_id": self._role_id, "secret_id": secret_id}
        asked_at = asyncio.get_running_loop().time()
        path = f"auth/{self._mount}/login"
        auth = (await self._server.ask("POST", path, answer=Authenticated, step=Step.LOGIN, body=body)).auth
        policies = tuple(auth.policies or ())
        return Login(
            token=checked_token(auth.client_token),
            made_at=asked_at,
            ttl_s=float(auth.lease_duration) if auth.lease_duration > 0 else None,
            renewable=auth.renewable,
            may_look_up="default" in policies,
            ours=True,
            policies=policies,
        )


def source_of(uri: TransitUri, server: Server) -> Source:
    """The way to log in that `uri` names. BadKey: it names none, and the environment holds no token."""
    if uri.role_id is not None and uri.secret_id_file is not None:
        return AppRole(server=server, mount=uri.approle_mount, role_id=uri.role_id, secret_id_file=uri.secret_id_file)
    if uri.token_file is not None:
        return TokenFile(server=server, path=uri.token_file)
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise BadKey(f"no way to log in: set {TOKEN_VARIABLE}, or name token_file, or role_id with secret_id_file")
    if _SECRET.fullmatch(token) is None:
        raise BadKey(f"{TOKEN_VARIABLE} holds no token: tokens are printable ASCII without spaces")
    return GivenToken(server=server, token=token)


def read_secret(path: Path) -> str:
    """The token or secret id in the private file at `path`. BadKey: others can read it, or it holds none. OSError."""
    content = read_private(path, bytes_max=SECRET_BYTES_MAX)
    text = content.decode("ascii", errors="replace").strip()
    if _SECRET.fullmatch(text) is None:
        raise BadKey(f"{path} holds no token or secret id: one line of printable ASCII without spaces")
    return text


def _check_file(path: Path) -> None:
    try:
        read_secret(path)
    except OSError as error:
        raise BadKey(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error


async def look_up(server: Server, token: str) -> Login:
    """What the server says of a token that was not made here.

    A token that may not look itself up is taken as it is, with no known end: whether it is any good, its use will say.
    """
    asked_at = asyncio.get_running_loop().time()
    unknown = Login(
        token=token, made_at=asked_at, ttl_s=None, renewable=False, may_look_up=False, ours=False, policies=()
    )
    facts = await facts_of(server, token)
    if facts is None:
        return unknown
    return replace(
        unknown,
        ttl_s=float(facts.ttl) if facts.expire_time is not None or facts.ttl > 0 else None,
        renewable=facts.renewable,
        may_look_up=True,
        policies=tuple(facts.policies or ()),
    )


async def facts_of(server: Server, token: str) -> _Facts | None:
    """What the server says of `token`; None: it is no token (any more), or may not ask."""
    path = "auth/token/lookup-self"
    try:
        return (await server.ask("GET", path, answer=_LookedUp, step=Step.WHOSE, token=token)).data
    except Forbidden:
        return None


async def renew(server: Server, login: Login) -> Login:
    """The same token, with a later end. Raises Forbidden, Denied, Unavailable."""
    asked_at = asyncio.get_running_loop().time()
    path = "auth/token/renew-self"
    auth = (await server.ask("POST", path, answer=Authenticated, step=Step.WHOSE, token=login.token, body={})).auth
    if auth.lease_duration <= 0:
        raise Denied("the server renewed the token for no time")
    return replace(login, made_at=asked_at, ttl_s=float(auth.lease_duration), renewable=auth.renewable)


async def revoke(server: Server, login: Login) -> None:
    """End a token. Raises what `Server.ask` raises."""
    await server.ask("POST", "auth/token/revoke-self", answer=Nothing, step=Step.WHOSE, token=login.token, body={})


def checked_token(token: str) -> str:
    """`token`, if nothing else comes along into the header that it is for. Denied: the server gave something else."""
    if _SECRET.fullmatch(token) is None:
        raise Denied("the server gave something that is not a token")
    return token
