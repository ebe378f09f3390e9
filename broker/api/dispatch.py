"""What every operation has in common: limits, credentials, reading, idempotency, deadline, answering.

The order is the order of trust: address, credential, role, and only then the request itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from broker.api.answering import ADMIN, answer, stream
from broker.api.errors import NotInTime, ShownOnce
from broker.api.gate import Gate
from broker.api.idempotency import KeyDesk
from broker.api.reading import idempotency_key, read_body, read_call
from broker.api.route import AnyRoute, Call, Reply, Stream
from broker.api.services import Services
from broker.api.turns import Turns
from broker.errors import Conflict, Unauthenticated, Unavailable

_log = structlog.get_logger("tokenbroker.api")

Source = Callable[[web.Request], str]


def peer_address(request: web.Request) -> str:
    """The address that the connection comes from."""
    return request.remote or "unknown"


class Dispatcher:
    """Serves the routes of the table."""

    def __init__(self, *, services: Services, gate: Gate, keys: KeyDesk, source: Source) -> None:
        self._services = services
        self._gate = gate
        self._keys = keys
        self._source = source
        self._turns = Turns()

    async def serve(self, route: AnyRoute, request: web.Request) -> web.StreamResponse:
        """Answer one request. Raises the broker's errors, which `problems` turns into answers."""
        source = self._source(request)
        self._gate.arrive(source)
        if route.roles is None:
            self._gate.arrive_unknown(source)
            admin = ""
        else:
            admin = await self._gate.admit(
                request.headers.get("Authorization"), source=source, roles=route.roles, operation=route.operation
            )
            request[ADMIN] = admin
            self._services.uses.note(f"admin:{admin}", "", "", self._services.clock.monotonic())
        async with self._turns.taken(route.turn, admin):
            try:
                reply = await self._carried_out(route, request, admin, source)
            except Unauthenticated:
                self._gate.count_failure(source)
                raise
            if not isinstance(reply, Stream):
                return answer(route, reply)
            try:
                return await stream(request, reply, deadline_s=route.deadline_s)
            except TimeoutError:
                raise _not_in_time(route) from None

    async def _carried_out(self, route: AnyRoute, request: web.Request, admin: str, source: str) -> Reply | Stream:
        body = await read_body(route, request)
        key = idempotency_key(route, request)
        call = read_call(route, request, body, admin=admin, source=source)
        try:
            async with asyncio.timeout(route.deadline_s):
                if key is None:
                    reply = await route.handler(self._services, call)
                else:
                    reply = await self._once(route, call, key, request.rel_url.raw_path_qs, body)
        except TimeoutError:
            raise _not_in_time(route) from None
        if route.method != "GET":
            await self._settle(route)
        return reply

    async def _once(
        self, route: AnyRoute, call: Call[Any, Any, Any], key: str, target: str, body: bytes
    ) -> Reply | Stream:
        ticket = self._keys.ticket(
            admin=call.admin, key=key, method=route.method, target=target, body=body, status=route.status
        )
        if (made := await ticket.made()) is not None:
            return await self._shown_again(route, call, made)
        keyed = dataclasses.replace(call, once=ticket.beside)
        try:
            return await route.handler(self._services, keyed)
        except Conflict:
            # The same request may have arrived twice at once, and the other one may have made it.
            if (made := await ticket.made()) is not None:
                return await self._shown_again(route, call, made)
            raise

    async def _shown_again(self, route: AnyRoute, call: Call[Any, Any, Any], made: str) -> Reply:
        if route.again is None:
            raise ShownOnce
        return await route.again(self._services, call, made)

    async def _settle(self, route: AnyRoute) -> None:
        """Wait until this replica acts on the change. It is durable by now, so being late is no failure."""
        try:
            await self._services.settled()
        except Unavailable as error:
            _log.warning("api.change_not_applied_yet", operation=route.operation, error=error.message)


def _not_in_time(route: AnyRoute) -> NotInTime:
    return NotInTime(
        f"{route.operation} was not finished in {route.deadline_s:g} s and may have been carried out or not; "
        "read before you repeat it"
    )
