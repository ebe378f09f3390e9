"""The API that the workers want to call: somebody else's service, which accepts the current key and the one before.

It counts who called when, so that the verdict rests on what the API saw and not on what the workers say.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

WORKER_HEADER = "X-Worker"
KEY_PREFIX = "sk-demo-"
"""How the keys of this API begin."""


class Upstream:
    """What the API accepts, and what it saw. `url` is where it listens."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self.url = ""
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.called_at: dict[str, float] = {}
        self._monotonic = monotonic
        self._keys: list[bytes] = []

    def issue(self, key: str) -> None:
        """Make this the current key; the current one becomes the one before, and the one before that stops."""
        self._keys = [key.encode(), *self._keys[:1]]

    async def answer(self, request: web.Request) -> web.Response:
        """One call of a worker: 200, or 401 for a key that is neither current nor the one before."""
        worker = request.headers.get(WORKER_HEADER, "?")
        self.called_at[worker] = self._monotonic()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if any(hmac.compare_digest(given, key) for key in self._keys):
            self.accepted[worker] += 1
            return web.Response(text="here you are\n")
        self.refused[worker] += 1
        return web.Response(status=401)


@asynccontextmanager
async def open_upstream(*, monotonic: Callable[[], float]) -> AsyncIterator[Upstream]:
    """The API, on a free port of loopback."""
    upstream = Upstream(monotonic=monotonic)
    app = web.Application()
    app.router.add_get("/", upstream.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield upstream
    finally:
        await runner.cleanup()
