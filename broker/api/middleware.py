"""Around every request: one line in the access log, one observation in the metrics, and no error that leaks.

The log has method, route, status, time and admin; never a header, a query or a body, nor a path that was not matched.
Requests without a credential have `STRANGERS_PER_S` lines a second; the next line says how many had none.
"""

from __future__ import annotations

import secrets
from typing import Final, Protocol

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from broker.api.answering import ADMIN, STARTED, refuse
from broker.api.errors import NoSuchPath, TooLarge, WrongMethod
from broker.api.problems import internal_problem, problem_of
from broker.clock import Clock
from broker.errors import BadRequest, BrokerError
from broker.vault.pacing import Pace

CLIENT_GONE: Final = 499
SWITCHED: Final = 101
STRANGERS_PER_S: Final = 20.0
STRANGERS_AT_ONCE: Final = 200
_log = structlog.get_logger("tokenbroker.api")


class Observer(Protocol):
    """What counts requests."""

    def observe(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one finished request."""
        ...


class _Lines:
    """Which requests have a line in the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pace = Pace(rate_per_s=STRANGERS_PER_S, burst=STRANGERS_AT_ONCE)
        self._left_out = 0

    def allowed(self, admin: str) -> dict[str, int] | None:
        """What to add to this request's line; None: it has none, and the next line counts it."""
        if not admin and self._pace.take(self._clock.monotonic()) > 0:
            self._pace.give_back()
            self._left_out += 1
            return None
        before, self._left_out = self._left_out, 0
        return {"left_out": before} if before else {}


def watched(*, clock: Clock, observer: Observer) -> Middleware:
    """The layer around every request: answers what was raised, and tells the log and the metrics how it ended.

    One layer, because what is around a WebSocket stays in memory for as long as its worker is connected.
    """
    lines = _Lines(clock)

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock.monotonic()
        status = CLIENT_GONE
        try:
            try:
                response = await handler(request)
            except Exception as error:
                if request.get(STARTED):
                    _cut(request, error)
                    raise
                response = _answer(request, error)
            status = response.status
            return response
        finally:
            # A WebSocket lives for hours and its story is in the audit log: here it would drown the requests.
            if status != SWITCHED:
                duration_s = clock.monotonic() - started
                route = _template(request)
                method = request.method if route else "?"
                admin = request.get(ADMIN, "")
                if (more := lines.allowed(admin)) is not None:
                    _log.info(
                        "api.request",
                        method=method,
                        route=route,
                        status=status,
                        duration_s=round(duration_s, 6),
                        admin=admin,
                        **more,
                    )
                observer.observe(method=method, route=route, status=status, duration_s=duration_s)

    return watch


def _cut(request: web.Request, error: Exception) -> None:
    """End a stream whose head was sent without a proper end, so that the client knows."""
    _log.warning("api.stream_cut", route=_template(request), error=type(error).__name__)
    if request.transport is not None:
        request.transport.abort()


def _answer(request: web.Request, error: Exception) -> web.Response:
    """What was raised as a problem document; our bugs as a reference, with the traceback in the log."""
    if isinstance(error, BrokerError):
        return _refused(error, told=request.get(ADMIN) is not None)
    if isinstance(error, web.HTTPException):
        return _refused(_translated(error), told=True)
    reference = secrets.token_hex(8)
    _log.error("api.internal_error", reference=reference, route=_template(request), exc_info=error)
    return refuse(internal_problem(reference))


def _refused(error: BrokerError, *, told: bool) -> web.Response:
    """told: whether whoever asks may know what ails the broker; strangers learn only that something does."""
    problem = problem_of(error)
    if problem.status >= 500:
        _log.error("api.refused", code=problem.code, status=problem.status, error=error.message)
        if not told:
            problem = msgspec.structs.replace(problem, detail=f"{problem.title}; retry later")
    return refuse(problem, error.allowed if isinstance(error, WrongMethod) else frozenset())


def _translated(error: web.HTTPException) -> BrokerError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return WrongMethod(allowed=frozenset(error.allowed_methods))
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge()
    if isinstance(error, web.HTTPNotFound):
        return NoSuchPath()
    return BadRequest(f"the request was refused: {error.reason}")


def _template(request: web.Request) -> str:
    """The route's template; never the path itself, which may hold anything."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
