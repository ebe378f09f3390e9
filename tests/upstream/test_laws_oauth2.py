"""The rotator `oauth2` keeps the laws, with an authorization server on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.conformance import BadTerms, RotatorLaws, RotatorWorld
from broker.upstream.port import Site


@dataclass(kw_only=True)
class AuthorizationWorld(RotatorWorld):
    """One client of an authorization server."""

    server: Any

    async def works(self, value: Secret) -> bool:
        return value.reveal().decode() in self.server.access

    async def live(self) -> int:
        return len(self.server.access) - 1

    def wrong(self, value: Secret) -> Secret:
        return Secret(b"at-that-never-was-one")


@asynccontextmanager
async def authorization_world(
    module: ModuleType, *, first: bool, grant: str, auth: str
) -> AsyncIterator[AuthorizationWorld]:
    """A world around a fresh server."""
    async with module.authorising() as server:
        server.auth = auth
        settings = {
            "grant": grant,
            "token_url": f"{server.url}/token",
            "revoke_url": f"{server.url}/revoke",
            "test_url": f"{server.url}/whoami",
            "client_id": server.client_id,
            "client_auth": auth,
            "scope": "read write",
        }
        credentials = {} if auth == "none" else {"client_secret": Secret(server.client_secret.encode())}
        if grant == "refresh_token":
            credentials["refresh_token"] = Secret(server.authorise().encode())
        named = dict.fromkeys(credentials, "laws/credential")

        def bad(names: str, **changed: str) -> BadTerms:
            return BadTerms(names=names, settings={**settings, **changed}, credentials=named)

        async with open_rotator("oauth2", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as rotator:
            yield AuthorizationWorld(
                server=server,
                rotator=rotator,
                lapses=True,
                settings=settings,
                credentials=credentials,
                wrong_credentials={name: Secret(b"none-that-it-knows") for name in credentials},
                current=None if first else Secret(server.issue().encode()),
                bystander=Secret(server.issue().encode()),
                bad_terms=(
                    bad("grant", grant="password"),
                    bad("token_url", token_url="http://elsewhere.example/token"),
                    bad("token_url", token_url="https://user:word@elsewhere.example/token"),
                    bad("token_url", token_url="https://elsewhere.example:port/token"),
                    bad("revoke_url", revoke_url="/revoke"),
                    bad("test_url", test_url="https://elsewhere.example/#part"),
                    bad("client_id", client_id=""),
                    bad("client_auth", client_auth="digest"),
                    bad("colour", colour="red"),
                    *(
                        BadTerms(
                            names=name,
                            settings=settings,
                            credentials={each: token for each, token in named.items() if each != name},
                        )
                        for name in named
                    ),
                ),
            )


class TestOAuth2ByRefreshToken(RotatorLaws):
    """A refresh token that serves again and again, and a client that proves itself in the header."""

    name: ClassVar[str] = "oauth2"

    @pytest.fixture
    async def world(self, oauth2_standin: ModuleType) -> AsyncIterator[RotatorWorld]:
        """An access token is in use."""
        async with authorization_world(oauth2_standin, first=False, grant="refresh_token", auth="basic") as world:
            yield world

    @pytest.fixture
    async def first_world(self, oauth2_standin: ModuleType) -> AsyncIterator[RotatorWorld]:
        """None is, yet."""
        async with authorization_world(oauth2_standin, first=True, grant="refresh_token", auth="none") as world:
            yield world


class TestOAuth2ByClientCredentials(RotatorLaws):
    """A client that proves itself in the form."""

    name: ClassVar[str] = "oauth2"

    @pytest.fixture
    async def world(self, oauth2_standin: ModuleType) -> AsyncIterator[RotatorWorld]:
        """An access token is in use."""
        async with authorization_world(oauth2_standin, first=False, grant="client_credentials", auth="post") as world:
            yield world

    @pytest.fixture
    async def first_world(self, oauth2_standin: ModuleType) -> AsyncIterator[RotatorWorld]:
        """None is, yet."""
        async with authorization_world(oauth2_standin, first=True, grant="client_credentials", auth="basic") as world:
            yield world
