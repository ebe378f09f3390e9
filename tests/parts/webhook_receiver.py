"""A service of the operator's own, on a real socket: keeps docs/spec/rotator-webhook.md to the letter.

It keeps values by token, and takes a value from `create` on, so that a value which a crash lost is one that works. The
signature is checked by code that shares nothing with the broker's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from broker.clock import Clock, SystemClock

TOLERANCE_S = 300


@dataclass
class Target:
    """What the service keeps of one token. pending: by the rotation that made it."""

    values: set[bytes] = field(default_factory=set)
    pending: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Receiver:
    """The running service. generates: it has the broker make values. answers: what it says instead, by step, as
    arguments of `web.Response`.
    """

    url: str = ""
    clock: Clock = field(default_factory=SystemClock)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    targets: dict[str, Target] = field(default_factory=dict)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list, repr=False)
    generates: bool = False
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def secret(self) -> bytes:
        """The key as the credential of a policy."""
        return b"whsec_" + base64.b64encode(self.key)

    def target(self, token: str) -> Target:
        """What is kept of a token."""
        return self.targets.setdefault(token, Target())

    async def take(self, request: web.Request) -> web.Response:
        """One call."""
        body = await request.read()
        self.calls.append((dict(request.headers), body))
        if not self._signed(request, body):
            return web.Response(status=401, text="who are you?")
        call = json.loads(body)
        if call["step"] in self.answers:
            return web.Response(**self.answers[call["step"]])
        return self._do(call)

    def _signed(self, request: web.Request, body: bytes) -> bool:
        named, when = request.headers["Webhook-Id"], request.headers["Webhook-Timestamp"]
        if abs(self.clock.now().timestamp() - int(when)) > TOLERANCE_S:
            return False
        digest = hmac.new(self.key, f"{named}.{when}.".encode() + body, hashlib.sha256).digest()
        expected = "v1," + base64.b64encode(digest).decode()
        return any(
            hmac.compare_digest(each.encode(), expected.encode())
            for each in request.headers["Webhook-Signature"].split(" ")
        )

    def _do(self, call: dict[str, Any]) -> web.Response:
        target, rotation = self.target(call["token"]), call["rotation"]
        new, current = _value(call["new"]), _value(call["current"])
        if call["step"] == "create":
            # What this rotation made before, and nobody knows, goes.
            target.values.discard(target.pending.pop(rotation, b""))
            if self.generates:
                return web.json_response({"generate": 24})
            made = secrets.token_urlsafe(24)
            target.pending[rotation] = made.encode()
            target.values.add(made.encode())
            return web.json_response({"value": made, "content_type": "text/plain", "notes": {"made": rotation}})
        if call["step"] == "set":
            target.values.add(new)
        elif call["step"] == "test" and new not in target.values:
            return web.Response(status=422, text="no such value")
        elif call["step"] == "finish":
            target.values.discard(current)
            target.pending.pop(rotation, None)
        elif call["step"] == "abandon":
            target.values.discard(new)
            target.values.discard(target.pending.pop(rotation, b""))
        return web.Response(status=204)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """The service on a free port of 127.0.0.1, while the context lasts."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/rotate", receiver.take)
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/rotate"
        yield receiver
    finally:
        await runner.cleanup()


def _value(shown: dict[str, str] | None) -> bytes:
    if shown is None:
        return b""
    if "value" in shown and shown["value"] is not None:
        return shown["value"].encode()
    text = shown["value_b64"]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
