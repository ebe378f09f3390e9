"""Turn what was decided into HTTP answers. Every answer says no-store: any of them may describe secrets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import msgspec
from aiohttp import hdrs, web

from broker.api.conditions import etag
from broker.api.problems import MEDIA_TYPE, Problem
from broker.api.route import AnyRoute, Reply, Stream

ADMIN: Final = web.RequestKey("admin", str)
"""Where the dispatcher leaves the name of who asks, for the access log."""
STARTED: Final = web.RequestKey("started", bool)
"""Set once the head of a stream is sent: from then on nothing else can be answered."""
CHUNK_S: Final = 30.0
"""Longest wait until a client takes the next chunk of a stream."""
_ENCODER: Final = msgspec.json.Encoder()


def answer(route: AnyRoute, reply: Reply) -> web.Response:
    """The answer to an operation that was carried out."""
    response = web.Response(status=route.status)
    if reply.body is not None:
        response.body = _ENCODER.encode(reply.body)
        response.content_type = "application/json"
    if reply.rev is not None:
        response.headers[hdrs.ETAG] = etag(reply.rev)
    if reply.location is not None:
        response.headers[hdrs.LOCATION] = reply.location
    return response


def refuse(problem: Problem, allowed: frozenset[str] = frozenset()) -> web.Response:
    """The answer to a request that was refused."""
    response = web.Response(status=problem.status, body=_ENCODER.encode(problem), content_type=MEDIA_TYPE)
    if problem.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="tokenbroker"'
    if problem.retry_after_s is not None:
        # The header holds whole seconds (RFC 9110 section 10.2.3); the body is exact.
        response.headers[hdrs.RETRY_AFTER] = str(max(1, -int(-problem.retry_after_s // 1)))
    if allowed:
        response.headers[hdrs.ALLOW] = ", ".join(sorted(allowed))
    return response


async def stream(request: web.Request, source: Stream, *, deadline_s: float) -> web.StreamResponse:
    """Send chunks as they come, the first within `deadline_s` (else TimeoutError, and nothing is sent).

    A client that takes no chunk for 30 s is cut off without a proper end, so that it knows.
    """
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(deadline_s):
            chunks = await stack.enter_async_context(source.opened)
        response = web.StreamResponse()
        response.content_type = source.media_type
        response.headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{source.filename}"'
        response.enable_chunked_encoding()
        await response.prepare(request)
        request[STARTED] = True
        async for chunk in chunks:
            async with asyncio.timeout(CHUNK_S):
                await response.write(chunk)
        await response.write_eof()
        return response


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """What every answer carries."""
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers[hdrs.SERVER] = "tokenbroker"
