"""An HTTP server that answers transit requests with whatever a test says: what no real server can be made to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

Reply = tuple[int, bytes, dict[str, str]]


class Standin:
    """Answers by the beginning of a path, the longest that fits; 403 to everything else. requests: what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._replies: dict[str, Reply] = {}
        self._held: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}

    def reply(self, path: str, status: int, body: object = b"", **headers: str) -> None:
        """Answer /v1/`path`… like this from now on; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._replies[f"/v1/{path}"] = (status, content, headers)

    def hold(self, path: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Answer exactly /v1/`path` only when the second event is set; the first one says that somebody asked."""
        self._held[f"/v1/{path}"] = asked, release = asyncio.Event(), asyncio.Event()
        return asked, release

    def hold_no_more(self, path: str) -> None:
        """Answer whoever asks from now on; who waits goes on waiting for the event."""
        del self._held[f"/v1/{path}"]

    def uri(self, folder: Path) -> str:
        """The URI of a key at this server, with a token in a file of `folder`."""
        token = folder / "standin-token"
        token.touch(mode=0o600)
        token.write_text("s.token-of-the-standin")
        return f"transit:{self.url}/transit/tokens?token_file={token}"

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The reply that fits."""
        self.requests.append((request.method, request.path, dict(request.headers)))
        await request.read()
        if request.path in self._held:
            asked, release = self._held[request.path]
            asked.set()
            await release.wait()
        fitting = [path for path in self._replies if request.path.startswith(path)]
        if not fitting:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        status, content, headers = self._replies[max(fitting, key=len)]
        return web.Response(status=status, body=content, headers=headers)


@asynccontextmanager
async def serving() -> AsyncIterator[Standin]:
    """A stand-in on a free loopback port."""
    standin = Standin()
    runner = web.ServerRunner(web.Server(standin.answer))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        standin.url = f"http://{host}:{port}"
        yield standin
    finally:
        await runner.cleanup()
