"""Put the API together as one aiohttp application.

Listening, TLS and the workers' WebSocket are added by the one who serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from broker.api.answering import add_headers
from broker.api.dispatch import Dispatcher, Source, peer_address
from broker.api.gate import Gate
from broker.api.idempotency import KeyDesk
from broker.api.limits import ApiLimits
from broker.api.metrics import RequestMetrics
from broker.api.middleware import watched
from broker.api.openapi import OpenApi
from broker.api.probes import Check, Readiness
from broker.api.reading import BODY_BYTES_MAX
from broker.api.refusals import Refusals
from broker.api.route import AnyRoute
from broker.api.routes import ROUTES
from broker.api.services import Services

NAME_IN_PATH: Final = "{token:(?:(?!/-/).)+}"
"""A token's name spans segments and ends at `/-/` or at the end of the path."""


def make_api(
    *,
    services: Services,
    checks: Mapping[str, Check],
    registry: CollectorRegistry,
    limits: ApiLimits | None = None,
    source: Source = peer_address,
) -> web.Application:
    """The application. Further routes may be added before it is started.

    checks: what readiness asks, by name (storage, kms, audit, feed). registry: what `/metrics` shows; the API's own
    numbers are added to it. source: how a request's address is found, where a proxy stands in front.
    """
    clock = services.clock
    limits = limits or ApiLimits()
    gate = Gate(
        authority=services.authority,
        refusals=Refusals(authority=services.authority, clock=clock),
        limits=limits,
        clock=clock,
    )
    keys = KeyDesk(stored=services.stored, clock=clock, request_key=services.request_key)
    dispatcher = Dispatcher(services=services, gate=gate, keys=keys, source=source)
    observer = RequestMetrics(registry)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[watched(clock=clock, observer=observer)])
    app.on_response_prepare.append(add_headers)
    for route in ROUTES:
        app.router.add_route(route.method, _pattern(route), partial(dispatcher.serve, route))
    _add_public(
        app, Readiness(checks=checks, clock=clock), registry, arrive=lambda request: gate.arrive(source(request))
    )
    return app


def _pattern(route: AnyRoute) -> str:
    return route.path.replace("{token}", NAME_IN_PATH)


def _add_public(
    app: web.Application,
    readiness: Readiness,
    registry: CollectorRegistry,
    *,
    arrive: Callable[[web.Request], None],
) -> None:
    """What needs no credential: it names no token, worker or admin. Whether the process lives is never limited."""
    document = OpenApi(ROUTES, version=version("tokenbroker"))

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text='{"alive":true}', content_type="application/json")

    async def readyz(request: web.Request) -> web.Response:
        arrive(request)
        ready = await readiness.read()
        return web.Response(
            status=200 if ready.ready else 503, body=msgspec.json.encode(ready), content_type="application/json"
        )

    async def metrics(request: web.Request) -> web.Response:
        arrive(request)
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(request: web.Request) -> web.Response:
        arrive(request)
        return web.Response(body=await document.read(), content_type="application/json")

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", openapi)
