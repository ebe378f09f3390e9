"""Take a request apart into a checked `Call`: path, query, headers, body. Who may ask was decided before."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from aiohttp import web

from broker.api.conditions import parse_conditions
from broker.api.errors import BodyTooSlow, TooLarge, WrongMediaType
from broker.api.route import AnyRoute, Call, convert_params
from broker.errors import BadRequest

BODY_BYTES_MAX: Final = 1024 * 1024
UNPROVED_BODY_BYTES_MAX: Final = 4096
"""Longest body of an operation that asks for no credential: strangers must not fill the memory."""
BODY_S: Final = 30.0
"""Longest time for a body to arrive."""
IDEMPOTENCY_KEY: Final = "Idempotency-Key"


async def read_body(route: AnyRoute, request: web.Request) -> bytes:
    """The bytes of the body; empty for an operation without one.

    WrongMediaType: not JSON. TooLarge: over the route's bound, 1 MiB at most. BodyTooSlow: not here within 30 s, or cut
    off.
    """
    if not route.takes_body:
        return b""
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise WrongMediaType
    bound = UNPROVED_BODY_BYTES_MAX if route.roles is None else BODY_BYTES_MAX
    if (request.content_length or 0) > bound:
        raise _too_large(bound)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > bound:
                    raise _too_large(bound)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {BODY_S:g} s; send it again") from None
    except ConnectionError:
        raise BodyTooSlow("the connection ended before the body did") from None
    return bytes(body)


def _too_large(bound: int) -> TooLarge:
    most = f"{bound // 2**20} MiB" if bound >= 2**20 else f"{bound // 2**10} KiB"
    return TooLarge(f"the body is longer than {most}; send less at once")


def read_call(route: AnyRoute, request: web.Request, body: bytes, *, admin: str, source: str) -> Call[Any, Any, Any]:
    """The request as its route's types say. BadRequest: something is unknown, missing, malformed or out of bounds."""
    return Call(
        operation=route.operation,
        path=convert_params(route.path_type, dict(request.match_info), "path"),
        query=convert_params(route.query_type, _query(request), "query"),
        body=_decoded(route, body),
        admin=admin,
        source=source,
        if_match=_conditions(route, request),
    )


def idempotency_key(route: AnyRoute, request: web.Request) -> str | None:
    """The key sent, if any. BadRequest: this operation takes none, so it must not look as if it had."""
    key = _one(request, IDEMPOTENCY_KEY)
    if key is not None and not route.creates and route.method != "GET":
        raise BadRequest(f"idempotency-key: {route.operation} takes none; leave it out")
    return key if route.creates else None


def _query(request: web.Request) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in request.query.items():
        if name in query:
            raise BadRequest(f"query: {name[:64]!a} is there twice; send it once")
        query[name] = value
    return query


def _conditions(route: AnyRoute, request: web.Request) -> int | None:
    if_match = parse_conditions(_one(request, "If-Match"), _one(request, "If-None-Match"))
    if if_match is not None and not route.conditional:
        raise BadRequest(f"if-match: {route.operation} takes no condition; leave it out")
    return if_match


def _one(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise BadRequest(f"{name.lower()}: it is there twice; send it once")
    return values[0] if values else None


def _decoded(route: AnyRoute, body: bytes) -> object:
    if not route.takes_body:
        return route.body_type()
    try:
        return msgspec.json.decode(body, type=route.body_type)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"body: {error}") from None
    except UnicodeDecodeError:
        # `from None`, and none of its text: the exception carries the body.
        raise BadRequest("body: it is not UTF-8") from None
