"""The admin API over HTTP, as commands use it: typed answers, whole lists, errors of the broker's tree.

What is asked and how an answer is shown are the commands'. Retried is only what may be repeated: reading, and creations
under an Idempotency-Key.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, Literal, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import yarl

from broker.api.problems import MEDIA_TYPE, Problem
from broker.api.views.common import Listing
from broker.cli.failures import CommandFailed
from broker.cli.reach import Reach
from broker.errors import BrokerError

T = TypeVar("T")
Method = Literal["GET", "POST", "PATCH", "DELETE"]
Query = Mapping[str, str | int | None]
"""Query parameters; those that are None are left out."""

TRIES: Final = 3
PAGE: Final = 1000
ANSWER_S: Final = 40.0
"""Longest wait for an answer; the broker's own deadline is 30 s."""
CHUNK_S: Final = 630.0
"""Longest wait for the next piece of a download; the broker prepares the first one for at most 600 s."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
RETRY_S_MAX: Final = 5.0
_NO_QUERY: Final[Query] = MappingProxyType({})


class Refused(BrokerError):
    """The broker refused the request."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem


class NoBroker(CommandFailed):
    """Nothing answers there as a token broker does."""

    code = "no_broker"


class AdminClient:
    """One connection pool to one broker, with one credential. Made by `open_client`."""

    def __init__(self, *, session: aiohttp.ClientSession, reach: Reach) -> None:
        self._session = session
        self._reach = reach

    @property
    def url(self) -> str:
        """The broker's base URL."""
        return self._reach.url

    async def get(self, path: str, reply: type[T], query: Query = _NO_QUERY, *, wait_s: float = 0.0) -> T:
        """Read one thing. Refused: as the broker says. NoBroker: nothing there answers."""
        return await self._ask("GET", path, reply, query=query, again=True, wait_s=wait_s)

    async def every(self, path: str, item: type[T], query: Query = _NO_QUERY) -> list[T]:
        """The whole list, page by page."""
        items: list[T] = []
        cursor: str | None = None
        while True:
            listing: type[Listing[T]] = Listing[item]  # type: ignore[valid-type]  # a type made at run time
            page = await self.get(path, listing, {**query, "limit": PAGE, "cursor": cursor})
            items += page.items
            cursor = page.next
            if cursor is None:
                return items

    async def post(
        self, path: str, reply: type[T], body: object = None, *, wait_s: float = 0.0, again: bool = False
    ) -> T:
        """Change something. wait_s: how much longer than usual the answer may take. again: doing it twice is harmless,
        so it is repeated when nobody knows whether it was done."""
        return await self._ask("POST", path, reply, body=body, wait_s=wait_s, again=again)

    async def create(self, path: str, reply: type[T], body: object) -> T:
        """Make something, once, however often the connection breaks on the way."""
        return await self._ask("POST", path, reply, body=body, key=uuid.uuid4().hex, again=True)

    async def patch(self, path: str, reply: type[T], body: object) -> T:
        """Replace some fields."""
        return await self._ask("PATCH", path, reply, body=body)

    async def delete(self, path: str) -> None:
        """Remove it."""
        await self._ask("DELETE", path, type(None))

    @asynccontextmanager
    async def download(self, method: Method, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of a stream. Its end is checked by HTTP's chunked encoding, so a cut one raises NoBroker."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=CHUNK_S, sock_connect=10)
        try:
            async with self._session.request(
                method, self._url(path, _NO_QUERY), timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await self._problem(response)
                yield response.content.iter_chunked(256 * 1024)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._no_broker(error) from None

    async def _ask(
        self,
        method: Method,
        path: str,
        reply: type[T],
        *,
        query: Query = _NO_QUERY,
        body: object = None,
        key: str | None = None,
        again: bool = False,
        wait_s: float = 0.0,
    ) -> T:
        """One request, tried `TRIES` times at most.

        again: repeat it also when the connection broke or the broker was unavailable, when nobody knows whether it was
        carried out. Over a rate limit it was not, so that is always tried again.
        """
        payload = None if body is None else msgspec.json.encode(body)
        headers = {"Idempotency-Key": key} if key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        for left in reversed(range(TRIES)):
            try:
                async with self._session.request(
                    method,
                    self._url(path, query),
                    data=payload,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=ANSWER_S + wait_s, sock_connect=10),
                    allow_redirects=False,
                ) as response:
                    return await self._read(response, reply)
            except Refused as refused:
                wanted_s = refused.problem.retry_after_s
                if not left or wanted_s is None or wanted_s > RETRY_S_MAX:
                    raise
                if refused.problem.status != 429 and not again:
                    raise
                await asyncio.sleep(wanted_s)
            except (aiohttp.ClientConnectorError, TimeoutError) as error:
                raise self._no_broker(error) from None
            except aiohttp.ClientError as error:
                if not (left and again):
                    raise self._no_broker(error) from None
        raise AssertionError("the last try returns or raises")

    async def _read(self, response: aiohttp.ClientResponse, reply: type[T]) -> T:
        if not 200 <= response.status < 300:
            raise await self._problem(response)
        content = await response.content.read(ANSWER_BYTES_MAX)
        if reply is type(None):
            return msgspec.convert(None, reply)
        while chunk := await response.content.read(ANSWER_BYTES_MAX - len(content)):
            content += chunk
        try:
            return msgspec.json.decode(content, type=reply)
        except msgspec.MsgspecError:
            # Without its text, which may quote a value.
            raise NoBroker(f"{self._reach.url} answered something that this release does not understand") from None

    async def _problem(self, response: aiohttp.ClientResponse) -> BrokerError:
        content = await response.content.read(64 * 1024)
        if response.content_type == MEDIA_TYPE:
            try:
                return Refused(msgspec.json.decode(content, type=Problem))
            except msgspec.MsgspecError:
                pass
        return NoBroker(f"{self._reach.url} answered {response.status} and seems to be no token broker; check --url")

    def _url(self, path: str, query: Query) -> yarl.URL:
        given = {name: str(value) for name, value in query.items() if value is not None}
        return yarl.URL(f"{self._reach.url}{path}", encoded=True).with_query(given)

    def _no_broker(self, error: BaseException) -> NoBroker:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            why = "its certificate is not trusted here; name its CA as ca = in the profile"
        elif isinstance(error, aiohttp.ClientConnectorError):
            why = f"{(error.os_error.strerror or 'no connection').lower()}; is it serving? Name another with --url"
        elif isinstance(error, TimeoutError):
            why = "it did not answer in time; what was asked may have been done, so look before you repeat it"
        else:
            why = "the connection broke; what was asked may have been done, so look before you repeat it"
        return NoBroker(f"no answer from the broker at {self._reach.url}: {why}")


def segment(text: str) -> str:
    """Text as one segment of a path. CommandFailed: it is empty or would lead elsewhere."""
    if text in {"", ".", ".."}:
        raise CommandFailed(f"{text!r} names nothing; give an id or a name")
    return quote(text, safe="")


@asynccontextmanager
async def open_client(reach: Reach) -> AsyncIterator[AdminClient]:
    """A client for this broker; closed with the context. CommandFailed: the CA file cannot be used."""
    trusted: ssl.SSLContext | bool = True
    if reach.ca is not None:
        try:
            trusted = ssl.create_default_context(cafile=reach.ca)
        except (OSError, ssl.SSLError) as error:
            raise CommandFailed(f"the CA file {reach.ca} cannot be used: {error}") from None
    headers = {"Authorization": f"Bearer {reach.credential.reveal().decode()}", "Accept": "application/json"}
    connector = aiohttp.TCPConnector(ssl=trusted, limit=32)
    async with aiohttp.ClientSession(headers=headers, connector=connector, auto_decompress=False) as session:
        yield AdminClient(session=session, reach=reach)
