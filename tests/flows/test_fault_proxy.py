"""The proxy that other tests put before a KMS does what they believe it does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    """A server that answers 201 with what it was sent, and the header it was asked with."""

    async def echo(request: web.Request) -> web.Response:
        text = f"{request.method} {request.raw_path} ".encode() + await request.read()
        return web.Response(status=201, body=text, headers={"X-Was": request.headers.get("X-Is", "")})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


@pytest.fixture
async def proxy(proxies: Any, upstream: str) -> AsyncIterator[Any]:
    """A proxy before it."""
    async with proxies.FaultProxy(upstream) as running:
        yield running


async def test_requests_pass_unchanged(proxy: Any) -> None:
    """Method, path, query, headers and body reach upstream, and its answer comes back."""
    async with aiohttp.ClientSession() as http:
        answer = await http.put(f"{proxy.url}/a%2Fb?x=1", data=b"body", headers={"X-Is": "so"})
        assert (answer.status, await answer.read()) == (201, b"PUT /a%2Fb?x=1 body")
        assert answer.headers["X-Was"] == "so"


async def test_requests_are_counted_by_what_they_ask(proxy: Any) -> None:
    """AWS operations by their target, all else by method and path."""
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            await http.post(proxy.url, headers={"X-Amz-Target": "TrentService.Decrypt"})
        await http.get(f"{proxy.url}/v1/key?x=1")
    assert proxy.counts == Counter({"TrentService.Decrypt": 2, "GET /v1/key": 1})


async def test_a_share_is_struck_in_a_pattern_that_repeats(proxy: Any, proxies: Any) -> None:
    """The same seed strikes the same requests, about as many as were asked for, and they do not reach upstream."""
    runs = []
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            proxy.fault = proxies.Fault(share=0.5, status=503, body=b"struck", seed=7)
            runs.append([(await http.get(proxy.url)).status for _ in range(100)])
    assert runs[0] == runs[1]
    assert 30 < runs[0].count(503) < 70
    assert set(runs[0]) == {201, 503}


async def test_only_what_is_meant_is_struck(proxy: Any, proxies: Any) -> None:
    """A fault may choose by what is asked, and others pass meanwhile."""
    proxy.fault = proxies.Fault(only=lambda asked: asked.body == b"bad", status=400)
    async with aiohttp.ClientSession() as http:
        assert [(await http.post(proxy.url, data=body)).status for body in (b"bad", b"good")] == [400, 201]
    assert proxy.struck.total() == 1


async def test_it_hangs_up_and_recovers(proxy: Any, proxies: Any) -> None:
    """A cut connection is an error of the connection, and the next request is served when the fault is gone."""
    async with aiohttp.ClientSession() as http:
        proxy.fault = proxies.Fault(hang_up=True)
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(proxy.url)
        proxy.fault = proxies.Fault()
        assert (await http.get(proxy.url)).status == 201


async def test_it_never_answers(proxy: Any, proxies: Any) -> None:
    """A hanging request is in flight until its client gives up; the proxy closes all the same."""
    proxy.fault = proxies.Fault(hang=True)
    async with aiohttp.ClientSession() as http:
        with pytest.raises(TimeoutError):
            await http.get(proxy.url, timeout=aiohttp.ClientTimeout(total=0.2))
    assert (proxy.total, proxy.struck.total()) == (1, 1)


async def test_delayed_requests_do_not_wait_for_each_other(proxy: Any, proxies: Any) -> None:
    """A slow upstream is slow for all at once: fifty requests are in flight together."""
    proxy.fault = proxies.Fault(delay_s=0.3)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(http.get(proxy.url) for _ in range(50)))
    assert proxy.in_flight_max == 50
