"""The SDK's HTTP, bounded in time and size, and without redirects. What answers mean is in `answers`."""

from __future__ import annotations

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

ATTEMPT_S = 2.0
"""Longest attempt, from waiting for a connection to the last byte: as long as the broker waits for a call."""
CONNECT_S = 1.0
ANSWER_BYTES_MAX = 65_536
"""Largest body that is read; the largest honest one (DescribeKey of a key in every region) has a tenth of it."""


class Oversized(Exception):
    """An answer has more bytes than are read."""


class Redirected(Exception):
    """An answer is a redirect. Its text is the HTTP status."""


class _BoundedResponse(aiohttp.ClientResponse):
    async def read(self) -> bytes:
        whole = bytearray()
        async for chunk in self.content.iter_any():
            whole += chunk
            if len(whole) > ANSWER_BYTES_MAX:
                self.close()
                raise Oversized
        return bytes(whole)


async def _stay(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Follow no redirect: a signed request, with a key in it, is for the host that it was signed for."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise Redirected(response.status)
    return response


class BoundedHttp(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore carries no types
    """The SDK's HTTP, with a bound on time and size, and without redirects."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        async with self._sessions_lock:
            if proxy_url not in self._sessions:
                session = aiohttp.ClientSession(
                    connector=await self._create_connector(proxy_url),
                    timeout=aiohttp.ClientTimeout(total=ATTEMPT_S, sock_connect=CONNECT_S),
                    skip_auto_headers={"Content-Type"},
                    auto_decompress=False,
                    response_class=_BoundedResponse,
                    middlewares=(_stay,),
                )
                self._sessions[proxy_url] = await self._exit_stack.enter_async_context(session)
            known: aiohttp.ClientSession = self._sessions[proxy_url]
            return known
