"""An authorization server and an API behind it, on a real socket: strict about RFC 6749, RFC 7009 and RFC 6750.

`single_use` has a refresh token serve once, and ends the whole grant when one is shown again, as RFC 9700 §4.14.2 asks.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web


@dataclass
class Authorization:
    """The running server. answers: what an endpoint says instead, by its path, as arguments of `web.Response`.
    shown: the forms that were sent.
    """

    url: str = ""
    client_id: str = "a client:with/odd signs"
    client_secret: str = field(default_factory=lambda: f"s+{secrets.token_urlsafe(16)} %", repr=False)
    expires_in: int | None = 3600
    single_use: bool = False
    auth: str = "basic"
    access: set[str] = field(default_factory=set)
    refresh: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown: list[dict[str, str]] = field(default_factory=list, repr=False)

    def authorise(self) -> str:
        """A refresh token, as a person would bring it from the server's pages."""
        made = f"rt-{secrets.token_urlsafe(16)}"
        self.refresh.add(made)
        return made

    def issue(self) -> str:
        """An access token for somebody else."""
        made = f"at-{secrets.token_urlsafe(16)}"
        self.access.add(made)
        return made

    async def token(self, request: web.Request) -> web.Response:
        """RFC 6749 §3.2."""
        form = await self._form(request)
        if "/token" in self.answers:
            return web.Response(**self.answers["/token"])
        if form is None or not self._known(request, form):
            return _error("invalid_client", status=401)
        granted: dict[str, object] = {"token_type": "Bearer"}
        if form.get("grant_type") == "refresh_token":
            shown = form.get("refresh_token", "")
            if shown in self.used:
                self.refresh.clear()
            if shown not in self.refresh:
                return _error("invalid_grant")
            if self.single_use:
                self.refresh.remove(shown)
                self.used.add(shown)
                granted["refresh_token"] = self.authorise()
        elif form.get("grant_type") != "client_credentials":
            return _error("unsupported_grant_type")
        granted["access_token"] = self.issue()
        if self.expires_in is not None:
            granted["expires_in"] = self.expires_in
        return web.json_response(granted, headers={"Cache-Control": "no-store"})

    async def revoke(self, request: web.Request) -> web.Response:
        """RFC 7009 §2."""
        form = await self._form(request)
        if "/revoke" in self.answers:
            return web.Response(**self.answers["/revoke"])
        if form is None or not self._known(request, form):
            return _error("invalid_client", status=401)
        if "token" not in form:
            return _error("invalid_request")
        self.access.discard(form["token"])
        self.refresh.discard(form["token"])
        return web.Response(status=200)

    async def whoami(self, request: web.Request) -> web.Response:
        """An API that bearer tokens are for (RFC 6750 §2.1)."""
        if "/whoami" in self.answers:
            return web.Response(**self.answers["/whoami"])
        kind, _, shown = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or shown not in self.access:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return web.json_response({"sub": self.client_id})

    async def _form(self, request: web.Request) -> dict[str, str] | None:
        if request.content_type != "application/x-www-form-urlencoded":
            return None
        fields = await request.post()
        form = {name: value for name, value in fields.items() if isinstance(value, str)}
        self.shown.append(form)
        return form if len(form) == len(fields) else None

    def _known(self, request: web.Request, form: dict[str, str]) -> bool:
        if self.auth == "post":
            told = (form.get("client_id"), form.get("client_secret"))
            return told == (self.client_id, self.client_secret) and "Authorization" not in request.headers
        if self.auth == "none":
            return form.get("client_id") == self.client_id and "client_secret" not in form
        kind, _, shown = request.headers.get("Authorization", "").partition(" ")
        if kind != "Basic" or "client_secret" in form:
            return False
        name, _, password = base64.b64decode(shown).decode().partition(":")
        return (unquote_plus(name), unquote_plus(password)) == (self.client_id, self.client_secret)


@asynccontextmanager
async def authorising() -> AsyncIterator[Authorization]:
    """The server on a free port of 127.0.0.1, while the context lasts."""
    server = Authorization()
    app = web.Application()
    app.router.add_post("/token", server.token)
    app.router.add_post("/revoke", server.revoke)
    app.router.add_get("/whoami", server.whoami)
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def _error(code: str, *, status: int = 400) -> web.Response:
    return web.json_response({"error": code, "error_description": "words that nobody repeats"}, status=status)
