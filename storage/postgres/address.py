"""From a storage URL to what a connection needs: hosts, TLS, timeouts. Connecting is `connecting`'s business."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from storage.catalog import shown_url
from storage.errors import Unreachable

POOL_MAX = 10
"""Connections of one replica, unless the URL says otherwise; one more listens, and one opens."""
PORT = 5432
SOCKETS = "/var/run/postgresql"
"""Where a server of this machine is looked for when no host is named."""

_EXAMPLE = "postgresql://tokenbroker@db1,db2/tokenbroker?target_session_attrs=read-write"
_PASSED_ON = ("user", "dbname", "passfile", "target_session_attrs")
_OURS = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "pool_max", "pgbouncer")


Place = tuple[str, int]
"""A host name, an address or a socket's folder, and a port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """How to reach one database.

    shown: the URL without a password. pooled: PgBouncer, by transactions, is between. places: where to ask, in order.
    arguments: what else asyncpg is told; the same for each place.
    """

    shown: str
    pooled: bool
    pool_max: int
    places: tuple[Place, ...]
    arguments: Mapping[str, Any] = field(repr=False)


def parse_address(url: str, *, statement_s: float) -> Address:
    """Read a `postgresql:` URL, with the options of docs/howto/postgresql.md.

    statement_s: the server gives up a statement after it. Off the machine the connection is TLS, and the server's name
    is verified; `sslmode=disable` is for addresses of this machine alone.
    Unreachable: not such a URL, an unknown or wrong option, a certificate that cannot be read.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres") or parts.fragment:
        raise Unreachable(f"storage.url must read like {_EXAMPLE}")
    try:
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise Unreachable("storage.url: its options read NAME=VALUE, with & between") from None
    options = dict(given)
    unknown = sorted(set(options) - {*_PASSED_ON, *_OURS})
    if unknown or len(options) != len(given):
        raise Unreachable(
            f"storage.url: unknown or repeated option {', '.join(unknown)}; known: {', '.join((*_PASSED_ON, *_OURS))}"
        )
    if not parts.path.strip("/") and "dbname" not in options:
        raise Unreachable(f"storage.url names no database; it reads like {_EXAMPLE}")
    pooled = _switch(options, "pgbouncer")
    places = _places(parts.netloc, options)
    kept = urlencode([(name, value) for name, value in given if name in _PASSED_ON])
    server = {"application_name": "tokenbroker"}
    if not pooled:
        server |= {
            "statement_timeout": str(int(statement_s * 1000)),
            "lock_timeout": str(int(statement_s * 1000 / 2)),
            "idle_in_transaction_session_timeout": "10000",
        }
    return Address(
        shown=shown_url(url),
        pooled=pooled,
        pool_max=_number(options, "pool_max", POOL_MAX),
        places=places,
        arguments={
            "dsn": parts._replace(
                scheme="postgresql", netloc="".join(parts.netloc.rpartition("@")[:2]), query=kept
            ).geturl(),
            "ssl": _tls(options, [host for host, _ in places]),
            "command_timeout": statement_s,
            # PgBouncer keeps no prepared statement from one transaction to the next.
            "statement_cache_size": 0 if pooled else 256,
            "max_cacheable_statement_size": 65_536,
            "server_settings": server,
        },
    )


def _places(netloc: str, options: Mapping[str, str]) -> tuple[Place, ...]:
    """The hosts with their ports, from before the path or from the options host and port, as libpq reads them."""
    hosts, ports = [], []
    for each in netloc.rpartition("@")[2].split(","):
        host, _, port = each[1:].partition("]") if each.startswith("[") else each.partition(":")
        hosts.append(unquote(host))
        ports.append(port.lstrip(":"))
    if "host" in options:
        hosts = options["host"].split(",")
    if "port" in options or "host" in options:
        ports = options.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise Unreachable("storage.url: name one port, or one for each host")
    return tuple((host or SOCKETS, _port(port)) for host, port in zip(hosts, ports, strict=True))


def _port(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**16):
        raise Unreachable("storage.url: a port is a number from 1 to 65535")
    return int(text or PORT)


def _is_here(host: str) -> bool:
    """Whether the host is this machine: a socket's folder, or a loopback address."""
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(options: Mapping[str, str], hosts: list[str]) -> ssl.SSLContext | bool:
    here = all(map(_is_here, hosts))
    mode = options.get("sslmode", "disable" if here else "verify-full")
    if mode == "disable" and here:
        return False
    if mode not in ("verify-full", "verify-ca"):
        raise Unreachable(
            f"storage.url: sslmode={mode} would let anybody between take the database's place; use verify-full, or "
            "verify-ca where names cannot be verified (disable only on this machine)"
        )
    try:
        context = ssl.create_default_context(cafile=options.get("sslrootcert"))
        if "sslcert" in options:
            context.load_cert_chain(options["sslcert"], options.get("sslkey"))
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(str(Path(options[name])) for name in ("sslrootcert", "sslcert", "sslkey") if name in options)
        raise Unreachable(f"storage.url: certificates cannot be read ({named}): {error.strerror or error}") from None
    context.check_hostname = mode == "verify-full"
    return context


def _switch(options: Mapping[str, str], name: str) -> bool:
    if options.get(name, "0") not in ("0", "1"):
        raise Unreachable(f"storage.url: {name} is 0 or 1")
    return options.get(name) == "1"


def _number(options: Mapping[str, str], name: str, otherwise: int) -> int:
    text = options.get(name, str(otherwise))
    if not (text.isascii() and text.isdecimal() and 2 <= int(text) <= 200):
        raise Unreachable(f"storage.url: {name} is a number from 2 to 200")
    return int(text)
