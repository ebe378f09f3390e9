"""One HTTP request to a service that tokens are for: over TLS, bounded in time and size, to where the policy says.

Redirects, cookies, proxies and netrc files of the environment play no part: each would send a secret elsewhere. What an
answer means is its callers' to say; what silence means is said here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError

REQUEST_S = 10.0
"""Longest request, from looking up the name to the last byte of the answer."""
ANSWER_BYTES_MAX = 64 * 1024
"""Largest answer that is read."""
_URL_CHARS_MAX = 512

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back. The content may hold a secret, and is not shown."""

    status: int
    content: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status says that it was done."""
        return 200 <= self.status < 300


class Http:
    """Sends requests. `open_http` makes one."""

    def __init__(self, *, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, method: str, url: URL, *, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """The answer, whatever its status, redirects excepted. Cancelled or out of time, it may have been carried out.

        Unreachable: no answer. Refused: a redirect, or nobody there who is vouched for. Failed: an answer over the
        bound, or that is no HTTP.
        """
        try:
            async with self._session.request(
                method, url, headers={"Accept-Encoding": "identity", **headers}, data=body, allow_redirects=False
            ) as response:
                if 300 <= response.status < 400:
                    raise Refused(
                        f"{url.host} answered with a redirect ({response.status}), and none is followed; name the "
                        "address where it ends"
                    )
                return Answer(status=response.status, content=await _bounded(response, str(url.host)))
        except TimeoutError:
            raise Unreachable(f"{url.host} gave no answer within {REQUEST_S:g} s; it will be tried again") from None
        except (aiohttp.ClientError, OSError) as error:
            # The cause is left out, as it can hold the head of the request.
            raise _silence(error, str(url.host)) from None


@asynccontextmanager
async def open_http() -> AsyncIterator[Http]:
    """HTTP for one call of an adapter, or several; connections are closed at the end."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=REQUEST_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # a small answer must not become a large one
    ) as session:
        yield Http(session=session)


def read_url(setting: str, text: str) -> URL:
    """The URL that a setting gives: https, or http to this machine. BadSettings: anything else; names the setting."""
    try:
        url = URL(text) if len(text) <= _URL_CHARS_MAX else URL()
        # The port is read lazily, and may be nonsense.
        host, _ = url.host, url.port
    except ValueError:
        url, host = URL(), None
    if not host or url.user is not None or url.password is not None or url.fragment or not url.absolute:
        raise BadSettings(f"the setting {setting} must be a URL such as https://HOST/PATH, without a user or fragment")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise BadSettings(f"the setting {setting} must begin with https://; http:// is only for this machine itself")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_json(answer: Answer, kind: type[T], *, host: str) -> T:
    """The content as `kind`. Failed: it is of another form; nothing of it is quoted."""
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failed(f"{host} answered {answer.status} with something else than was to be expected") from None


def status_error(answer: Answer, *, host: str, remedy: str) -> UpstreamError:
    """What a status other than success means, where nothing better is known. remedy: against a refusal."""
    if answer.status in (408, 425, 429, 502, 503, 504):
        return Unreachable(f"{host} answered {answer.status}; it will be tried again")
    if answer.status >= 500:
        return Failed(f"{host} answered {answer.status}; see its own logs")
    return Refused(f"{host} refused with status {answer.status}; {remedy}")


async def _bounded(response: aiohttp.ClientResponse, host: str) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > ANSWER_BYTES_MAX:
            response.close()
            raise Failed(f"the answer of {host} is larger than {ANSWER_BYTES_MAX} bytes; check the address")
    return bytes(content)


def _silence(error: Exception, host: str) -> UpstreamError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Refused(f"the certificate of {host} is not vouched for; renew it, or make its CA one of the system's")
    if isinstance(error, aiohttp.ClientResponseError):
        return Failed(f"whoever answers at {host} does not speak HTTP as a server should; check host and port")
    return Unreachable(f"there is no connection to {host} ({type(error).__name__}); it will be tried again")
