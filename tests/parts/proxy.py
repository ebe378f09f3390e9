"""An HTTP reverse proxy on a real loopback socket that counts what passes, and fails on demand.

    async with FaultProxy("http://127.0.0.1:5000") as proxy:
        proxy.fault = Fault(delay_s=2.0, share=0.95, status=500)
        ...
        assert proxy.counts["TrentService.Decrypt"] == 1

Requests are counted by what they ask: the last part of `X-Amz-Target` where there is one, else method and path.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
_BODY_BYTES_MAX = 2**20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, as a fault may choose by it."""

    name: str
    method: str
    path: str
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to requests; `Fault()` happens to none of them.

    only: the requests that are meant. delay_s: all of those wait so long first. share: of those, so many are struck, in
    a pattern that `seed` decides, and the others pass. A struck request gets `status`, `headers` and `body` and never
    reaches upstream; or its connection is cut (hang_up); or it gets no answer as long as the proxy runs (hang).
    """

    only: Callable[[Asked], bool] = lambda _: True
    delay_s: float = 0.0
    share: float = 1.0
    seed: int = 0
    status: int | None = None
    body: bytes = b""
    content_type: str = "application/x-amz-json-1.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    hang_up: bool = False
    hang: bool = False
    _turns: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def strikes(self) -> bool:
        """Whether the next request that is meant is struck."""
        if self.status is None and not self.hang_up and not self.hang:
            return False
        dice = hashlib.sha256(f"{self.seed} {next(self._turns)}".encode()).digest()
        return int.from_bytes(dice[:8], "big") < self.share * 2**64


class FaultProxy:
    """A proxy before `upstream_url`; switch `fault` while it runs.

    counts: requests by what they asked, failed ones included. struck: those that the fault happened to.
    in_flight_max: the most requests at once so far.
    """

    def __init__(self, upstream_url: str) -> None:
        self._upstream = upstream_url.rstrip("/")
        self.fault = Fault()
        self.counts: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.in_flight = 0
        self.in_flight_max = 0
        self.url = ""
        self._closing = asyncio.Event()

    @property
    def total(self) -> int:
        """Requests so far."""
        return self.counts.total()

    def forget(self) -> None:
        """Count from 0."""
        self.counts.clear()
        self.struck.clear()
        self.in_flight_max = self.in_flight

    async def __aenter__(self) -> FaultProxy:
        # No limit and no pool: a proxy that makes requests wait for each other would be a fault nobody asked for.
        self._client = ClientSession(
            connector=TCPConnector(limit=0), auto_decompress=False, timeout=ClientTimeout(total=None)
        )
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        await self._runner.cleanup()
        await self._client.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(name=_name(request), method=request.method, path=request.path, body=await request.read())
        self.counts[asked.name] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            return await self._answer(request, asked)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        fault = self.fault
        if not fault.only(asked):
            return await self._pass(request, asked)
        if fault.delay_s:
            await self._wait(fault.delay_s)
        if not fault.strikes():
            return await self._pass(request, asked)
        self.struck[asked.name] += 1
        if fault.hang:
            await self._closing.wait()
        if fault.status is None:
            return _cut(request)
        return web.Response(
            status=fault.status, body=fault.body, content_type=fault.content_type, headers=fault.headers
        )

    async def _wait(self, seconds: float) -> None:
        """Until the time is over, or the proxy closes."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _pass(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        # A signature covers the host that the client meant.
        headers["Host"] = request.headers["Host"]
        url = f"{self._upstream}{request.raw_path}"
        try:
            async with self._client.request(
                request.method, url, headers=headers, data=asked.body, allow_redirects=False
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except OSError:
            return _cut(request)


def _name(request: web.Request) -> str:
    target = request.headers.get("X-Amz-Target")
    return target.rpartition("/")[2] if target else f"{request.method} {request.path}"


def _cut(request: web.Request) -> web.StreamResponse:
    """End the connection without a byte of an answer."""
    transport: Any = request.transport
    if transport is not None:
        transport.abort()
    raise ConnectionResetError("cut by the proxy")
