"""From the URL an operator gives to the addresses a worker calls. Nothing here connects."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tokenbroker_client.errors import BadAddress, PlaintextRefused
from tokenbroker_client.wire import CONNECT_PATH

_TLS_OF_SCHEME: Final = {"ws": False, "http": False, "wss": True, "https": True}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a broker listens."""

    connect_url: str
    enroll_url: str
    tls: bool


def parse_endpoint(url: str, *, insecure_plaintext: bool = False) -> Endpoint:
    """Read a broker's URL: ws, wss, http or https, with or without the path `/v1/connect`.

    Raises BadAddress for another scheme, a missing host, a bad port, and for user names, queries and fragments:
    a URL ends up in logs, so nothing may tempt anyone to put a secret there. Raises PlaintextRefused for a scheme
    without TLS to a host that is not loopback, unless `insecure_plaintext`.
    """
    parts = _split(url)
    tls = _TLS_OF_SCHEME[parts.scheme]
    host = parts.hostname or ""
    if not (tls or insecure_plaintext or _is_loopback(host)):
        raise PlaintextRefused(
            f"{host} is not loopback, and {parts.scheme}:// would show every token to the network between; "
            "use wss://, or insist with insecure_plaintext"
        )
    base = parts.path.rstrip("/").removesuffix(CONNECT_PATH)
    where = f"{parts.netloc}{base}"
    return Endpoint(
        connect_url=f"{'wss' if tls else 'ws'}://{where}{CONNECT_PATH}",
        enroll_url=f"{'https' if tls else 'http'}://{where}/v1/enroll",
        tls=tls,
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks its range
    except ValueError as error:
        raise BadAddress(f"the URL cannot be read: {error}") from error
    if parts.scheme not in _TLS_OF_SCHEME:
        raise BadAddress(f"the URL's scheme is {parts.scheme or 'missing'}; ws, wss, http or https belong there")
    if not parts.hostname:
        raise BadAddress("the URL names no host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadAddress("the URL has a user name, a query or a fragment; a broker's address has none")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
