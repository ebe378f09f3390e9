"""The yardstick: bare aiohttp WebSockets on uvloop. `python -m benchmarks.echo` prints its URL and serves.

A text message is echoed. `POST /v1/everybody` sends its body to every connection.
"""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import WSMsgType, web

_SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets")


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send every text message back."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    request.app[_SOCKETS].add(socket)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    request.app[_SOCKETS].discard(socket)
    return socket


async def everybody(request: web.Request) -> web.Response:
    """Send the same text to all who are connected."""
    text = await request.text()
    for socket in list(request.app[_SOCKETS]):
        await socket.send_str(text)
    return web.Response()


async def main() -> None:
    """Serve until terminated."""
    app = web.Application()
    app[_SOCKETS] = set()
    app.router.add_get("/v1/connect", echo)
    app.router.add_post("/v1/everybody", everybody)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(f"ready http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
