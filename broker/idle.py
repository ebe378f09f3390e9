"""Connections that ask nothing: how long they may stay, and who makes room when there are too many.

Whoever opens connections and sends nothing, or half a request, would otherwise keep them for ever, until nobody else
can be accepted. What is being served, a worker's session above all, is not touched here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestHandler

IDLE_S: Final = 30.0
"""How long a connection may stay open without a whole request: before the first one, between two, and while the last
answer is being read."""
IDLE_MAX: Final = 2048
"""Connections that may stay so at once; beyond, the one that has asked nothing for the longest time is closed."""
SWEEP_S: Final = 1.0


class IdleConnections:
    """Closes what is idle. `middleware` tells it what is busy; `watching` owns its timer."""

    def __init__(self, *, idle_s: float = IDLE_S, idle_max: int = IDLE_MAX, sweep_s: float = SWEEP_S) -> None:
        self._idle_s = idle_s
        self._idle_max = idle_max
        self._sweep_s = sweep_s
        self._busy: set[RequestHandler] = set()
        self._since: dict[RequestHandler, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def middleware(self) -> Middleware:
        """The outermost layer around every request."""

        @web.middleware
        async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = request.protocol
            self._busy.add(connection)
            self._since.pop(connection, None)
            try:
                return await handler(request)
            finally:
                self._busy.discard(connection)

        return serve

    @contextmanager
    def watching(self, server: web.Server) -> Iterator[None]:
        """Look at the connections of `server`, every `sweep_s` seconds, while the context lasts."""
        self._look_again(server)
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _look_again(self, server: web.Server) -> None:
        self._sweep(server)
        self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._look_again, server)

    def _sweep(self, server: web.Server) -> None:
        now = asyncio.get_running_loop().time()
        known = self._since
        # In the order in which they were first seen idle, so that the oldest come first.
        idle = [connection for connection in server.connections if connection not in self._busy]
        self._since = dict(sorted(((each, known.get(each, now)) for each in idle), key=lambda each: each[1]))
        too_many = len(self._since) - self._idle_max
        for number, (connection, since) in enumerate(list(self._since.items())):
            if number >= too_many and now - since < self._idle_s:
                return
            connection.force_close()
            del self._since[connection]
