"""A login at a PostgreSQL server as the value of a token: a JSON object, or a connection URI."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from broker.secret import Secret
from broker.upstream.postgresql.server import ServerTerms

Format = Literal["json", "dsn"]
CONTENT_TYPES: dict[Format, str] = {"json": "application/json", "dsn": "text/plain"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Who logs in, and with which password."""

    user: str
    password: str = field(repr=False)


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    dbname: str
    user: str
    password: str


class _Named(msgspec.Struct):
    user: str
    password: str


def write_login(login: Login, where: ServerTerms, form: Format) -> Secret:
    """The value with which a worker logs in at `where`."""
    if form == "json":
        document = _Document(
            host=where.host, port=where.port, dbname=where.dbname, user=login.user, password=login.password
        )
        return Secret(msgspec.json.encode(document))
    user, password, dbname = (quote(part, safe="") for part in (login.user, login.password, where.dbname))
    host = f"[{where.host}]" if ":" in where.host else quote(where.host, safe="")
    return Secret(f"postgresql://{user}:{password}@{host}:{where.port}/{dbname}".encode())


def read_login(value: Secret) -> Login | None:
    """Who logs in with a value, whichever of the two forms it has; None: it names nobody, or no password."""
    content = value.reveal()
    try:
        if content.lstrip().startswith(b"{"):
            named = msgspec.json.decode(content, type=_Named)
            return _whole(named.user, named.password)
        parts = urlsplit(content.decode().strip())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    if parts.scheme not in ("postgresql", "postgres"):
        return None
    return _whole(unquote(parts.username or ""), unquote(parts.password or ""))


def _whole(user: str, password: str) -> Login | None:
    return Login(user=user, password=password) if user and password else None
