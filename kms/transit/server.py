"""One Vault or OpenBao server over HTTP: asks, bounds the answer, and reads it as a given type.

What answers mean is in `errors`; which token to show is the callers' affair.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from kms.errors import BadKey, Corrupt, Denied, Unavailable
from kms.transit.errors import Step, connection_error, shown, status_error
from kms.transit.uri import TransitUri

REQUEST_S = 1.5
"""How long one request may take, connecting included: less than the 2 s that the broker gives a call."""
CONNECTIONS_MAX = 32
"""Most connections to the server at a time; more calls wait their turn within their deadline."""
ANSWER_BYTES_MAX = 64 * 1024
"""Largest answer that is read."""

T = TypeVar("T", bound=msgspec.Struct)


# RecursionError: brackets that are nested ten thousand deep.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Failure(msgspec.Struct):
    errors: list[str]


class Server:
    """The server that a key URI names. Follows no redirect, keeps no cookie, knows no proxy of the environment."""

    def __init__(self, *, http: aiohttp.ClientSession, uri: TransitUri) -> None:
        self._http = http
        self._origin = uri.origin
        self._namespace = uri.namespace

    async def ask(
        self,
        method: str,
        path: str,
        *,
        answer: type[T],
        step: Step,
        token: str = "",
        body: Mapping[str, object] | None = None,
        in_namespace: bool = True,
    ) -> T:
        """The server's answer to `method` on /v1/`path`, as an `answer`; an empty body counts as {}.

        Unavailable: no answer, or one that says "later". Forbidden: status 403. Denied, Disabled, Corrupt: see
        `errors`; an answer that is too large or of another form is Corrupt, and Denied while logging in.
        """
        status, content = await self._exchange(method, path, token=token, body=body, in_namespace=in_namespace)
        if not 200 <= status < 300:
            hidden = (token, *(value for value in (body or {}).values() if isinstance(value, str)))
            raise status_error(status, _said(content, hidden=hidden), step=step) from None
        # Corrupt is said of a blob, which only a use of the key has.
        kind = Corrupt if step is Step.KEY else Denied
        if len(content) > ANSWER_BYTES_MAX:
            raise kind(f"the server's answer while {step.value} is larger than {ANSWER_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(content or b"{}", type=answer)
        except _UNREADABLE:
            raise kind(f"the server's answer while {step.value} is not of the form that Vault gives") from None

    async def _exchange(
        self, method: str, path: str, *, token: str, body: Mapping[str, object] | None, in_namespace: bool
    ) -> tuple[int, bytes]:
        headers = {"X-Vault-Request": "true", "Accept-Encoding": "identity"}
        if token:
            headers["X-Vault-Token"] = token
        if self._namespace is not None and in_namespace:
            headers["X-Vault-Namespace"] = self._namespace
        try:
            async with self._http.request(
                method,
                URL(f"{self._origin}/v1/{path}", encoded=True),
                headers=headers,
                data=None if body is None else msgspec.json.encode(body),
                allow_redirects=False,
            ) as response:
                return response.status, await _bounded(response)
        except TimeoutError:
            raise Unavailable(f"no answer within {REQUEST_S:g} s; the same call may succeed later") from None
        except (aiohttp.ClientError, OSError) as error:
            raise connection_error(error) from None


@asynccontextmanager
async def connecting(uri: TransitUri) -> AsyncIterator[Server]:
    """The server of `uri`; connections are made when they are needed, and closed at the end. BadKey: the CA file."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=_tls(uri) if uri.encrypted else True)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=REQUEST_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # a proxy named in the environment would see every token
        auto_decompress=False,  # a small answer must not become a large one
    ) as http:
        yield Server(http=http, uri=uri)


def _tls(uri: TransitUri) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=uri.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadKey(f"{uri.ca_file} cannot be read as PEM certificates of a CA ({type(error).__name__})") from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body; of one over the bound, its beginning, which is over the bound as well."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > ANSWER_BYTES_MAX:
            response.close()
            break
    return bytes(content)


def _said(content: bytes, *, hidden: tuple[str, ...]) -> str | None:
    try:
        failure = msgspec.json.decode(content, type=_Failure)
    except _UNREADABLE:
        return None
    return shown(failure.errors, hidden=hidden)
