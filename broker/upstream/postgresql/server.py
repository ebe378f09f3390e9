"""A connection to the PostgreSQL server of a policy, and what its errors mean. Which statements, its callers know.

TLS is verified unless the server is this machine. Nothing of the environment (PGPASSFILE, PGSSLMODE, …) is followed:
each argument that asyncpg would look for there is given.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import asyncpg
import msgspec

from broker.upstream.destinations import check_host
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.http import is_loopback
from broker.upstream.port import Site
from broker.upstream.terms import Terms

CONNECT_S = 5.0
STATEMENT_S = 5.0
"""The longest wait for a connection, and for each statement."""
NAME_BYTES_MAX = 63
"""PostgreSQL cuts longer names off, and would then speak of another role."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
"""Of a database or a role. Behind a NUL a server would read settings of the connection."""

_OWN_GROUND = (
    "SET search_path TO pg_catalog; SET ROLE NONE; SET default_transaction_read_only TO off; "
    "SET statement_timeout TO 0; SET lock_timeout TO 0; SET idle_in_transaction_session_timeout TO 0"
)
"""What the owner of a database may set for everybody who connects to it, as it is without him. Else a function of his
would be called in place of the server's, as the role that makes roles; or nothing could be ended there any more.
"""


class ServerTerms(Terms, frozen=True, kw_only=True):
    """Settings for reaching a server. user: who changes roles there; the credential `password` is his.

    tls_ca: a PEM file on the broker's machine, in place of the system's authorities. Every replica needs it.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 5432
    dbname: Name
    user: Name
    tls_ca: str = ""


@asynccontextmanager
async def connected(
    where: ServerTerms, *, user: str, password: str, site: Site, refused: type[UpstreamError] = BadSettings
) -> AsyncIterator[Any]:
    """An asyncpg connection as `user`; within the block asyncpg's errors become `broker.upstream.errors`.

    refused: what it is when the server does not take this login. BadSettings: also a server that the configuration does
    not allow. Cancelled, a statement on its way may be carried out.
    """
    check_server(where, site)
    with translating(refused):
        connection = await asyncpg.connect(
            host=where.host,
            port=where.port,
            database=where.dbname,
            user=user,
            password=password,
            # In a thread: to read the system's authorities takes 25 ms, and connections are as many as leases.
            ssl=await asyncio.to_thread(_tls, where),
            direct_tls=False,
            target_session_attrs="any",
            timeout=CONNECT_S,
            command_timeout=STATEMENT_S,
            statement_cache_size=0,
            server_settings={"application_name": "tokenbroker"},
        )
        try:
            await connection.execute(_OWN_GROUND)
            yield connection
        except BaseException:
            connection.terminate()
            raise
        await connection.close(timeout=CONNECT_S)


def check_server(where: ServerTerms, site: Site) -> None:
    """Return if the server may be signed in at: it can ask for the password itself. BadSettings."""
    check_host("host", where.host, where.port, allowed=site.hosts)


@contextmanager
def translating(refused: type[UpstreamError] = BadSettings) -> Iterator[None]:
    """Within this block asyncpg's errors become `broker.upstream.errors`. The server's own text is left out."""
    try:
        yield
    except UpstreamError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise _meaning(error, refused) from None


def quoted(name: str) -> str:
    """A name as SQL spells an identifier. BadSettings: not 1 to 63 bytes of text, so that it would be another's."""
    if not 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX or not name.isprintable():
        raise BadSettings(f"{name[:64]!r} is no name of a role; those have 1 to {NAME_BYTES_MAX} bytes")
    return '"' + name.replace('"', '""') + '"'


def _tls(where: ServerTerms) -> ssl.SSLContext | bool:
    if not where.tls_ca and (is_loopback(where.host) or where.host.startswith("/")):
        return False
    try:
        return ssl.create_default_context(cafile=where.tls_ca or None)
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(f"tls_ca: no certificates can be read there ({type(error).__name__})") from None


_BY_STATE: tuple[tuple[str, type[UpstreamError], str], ...] = (
    ("3D000", BadSettings, "there is no such database; check the setting dbname"),
    ("42501", Refused, "the role of the setting user may not do this; see the page for what it needs"),
    ("25006", Unreachable, "the server takes no writes; name the primary in the setting host"),
    ("2BP01", Refused, "the role owns something there, or has rights of its own; see reassign_to and drop_owned"),
    ("08", Unreachable, "the connection broke; it will be tried again"),
    ("53", Unreachable, "the server has no room now; it will be tried again"),
    ("57", Unreachable, "the server is starting or stopping; it will be tried again"),
    ("40", Unreachable, "the server undid it for the sake of another; it will be tried again"),
    ("55P03", Unreachable, "somebody else has locked it; it will be tried again"),
)
"""By the beginning of the SQLSTATE, the more exact first."""


def _meaning(error: Exception, refused: type[UpstreamError]) -> UpstreamError:
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        if state.startswith("28"):
            return refused(f"the server does not take this login; check user, password and pg_hba.conf ({state})")
        for beginning, kind, text in _BY_STATE:
            if state.startswith(beginning):
                return kind(f"{text} (SQLSTATE {state})")
        return Failed(f"the server did not carry it out (SQLSTATE {state}); see its own logs")
    if isinstance(error, ssl.SSLCertVerificationError):
        return BadSettings("the server's certificate is not trusted; check host, and name its CA in tls_ca")
    return Unreachable(f"the server does not answer ({type(error).__name__}); it will be tried again")
