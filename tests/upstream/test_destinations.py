"""A policy sends credentials and values nowhere but where the configuration allows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_issuer, open_rotator
from broker.upstream.errors import BadSettings
from broker.upstream.port import Rotation, Site, Wanted

KEY = json.dumps({"Version": 1, "AccessKeyId": "A" * 20, "SecretAccessKey": "secret"}).encode()
LOGIN = b'{"user": "a", "password": "x"}'
HELD = {"password": b"hunter2hunter2", "client_secret": b"hunter2hunter2", "access_key": KEY}
NOWHERE = frozenset({"", "127.0.0.1:1", "127.0.0.2", "localhost", "elsewhere.example"})


@dataclass
class Server:
    """Somebody's own server, which counts who comes."""

    port: int
    callers: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """It listens."""
    there = Server(port=0)

    async def called(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.callers += 1
        writer.close()

    listener = await asyncio.start_server(called, "127.0.0.1", 0)
    async with listener:
        there.port = listener.sockets[0].getsockname()[1]
        yield there


def policy(name: str, server: Server) -> tuple[Mapping[str, str], Mapping[str, bytes], bytes]:
    """Settings that lead to the server, credentials, and a value such as the adapter knows."""
    database = {"host": "127.0.0.1", "port": str(server.port), "dbname": "app", "user": "maker"}
    if name == "postgresql-role":
        return {**database, "roles": "a,b"}, {"password": HELD["password"]}, LOGIN
    if name == "postgresql-user":
        return {**database, "roles": "a"}, {"password": HELD["password"]}, LOGIN
    if name == "oauth2":
        told = {"token_url": server.url, "revoke_url": server.url, "client_id": "x"}
        return told, {"client_secret": HELD["client_secret"]}, b"value"
    own = {"user": "app"} if name == "aws-iam-key" else {"role_arn": "arn:aws:iam::123456789012:role/reports"}
    return {**own, "endpoint": server.url}, {"access_key": HELD["access_key"]}, KEY


async def refused(call: Callable[[], Awaitable[Any]]) -> None:
    """The configuration does not allow it, and the message says which line of it would."""
    with pytest.raises(BadSettings, match=r"rotation\.hosts"):
        await call()


@pytest.mark.parametrize("name", ["postgresql-role", "oauth2", "aws-iam-key"])
async def test_a_rotator_signs_in_nowhere_else(server: Server, name: str) -> None:
    """Neither is such a policy taken, nor one carried out that was taken before the configuration was narrowed."""
    settings, credentials, value = policy(name, server)
    if name == "oauth2":
        settings = {**settings, "grant": "client_credentials", "test_url": server.url}
    turn = Rotation(
        token="app/x",
        settings=settings,
        credentials={each: Secret(held) for each, held in credentials.items()},
        id="r1",
    )
    async with open_rotator(name, Site(clock=SystemClock(), hosts=NOWHERE)) as rotator:

        async def look() -> None:
            rotator.check(settings, credentials)

        await refused(look)
        await refused(lambda: rotator.test(turn, Secret(value)))
        for call in (
            lambda: rotator.set(turn, Secret(value), None),
            lambda: rotator.create(turn, None),
            lambda: rotator.finish(turn, Secret(b"another" if name == "oauth2" else value), Secret(value)),
            lambda: rotator.abandon(turn, Secret(value)),
        ):
            with suppress(BadSettings):  # some have nothing to ask, and say so by returning
                await call()
    assert server.callers == 0


@pytest.mark.parametrize("name", ["postgresql-user", "oauth2", "aws-sts"])
async def test_an_issuer_signs_in_nowhere_else(server: Server, name: str) -> None:
    """The same of values that are made for leases."""
    settings, credentials, value = policy(name, server)
    wanted = Wanted(
        token="app/x",
        settings=settings,
        credentials={each: Secret(held) for each, held in credentials.items()},
        lease="0" * 32,
        worker="w",
        groups=(),
        ttl_s=60.0,
    )
    async with open_issuer(name, Site(clock=SystemClock(), hosts=NOWHERE)) as issuer:

        async def look() -> None:
            issuer.check(settings, credentials)

        await refused(look)
        await refused(lambda: issuer.issue(wanted))
        if name != "aws-sts":  # which asks nobody then
            await refused(lambda: issuer.revoke(wanted, issuer.handle(wanted), Secret(value)))
    assert server.callers == 0


@pytest.mark.parametrize("setting", ["token_url", "revoke_url", "test_url"])
async def test_each_url_of_a_policy_must_be_allowed(server: Server, setting: str) -> None:
    """At revoke_url the value from before would arrive, at test_url the new one."""
    allowed = "https://login.example/"
    settings = {
        "grant": "client_credentials",
        "client_id": "x",
        **dict.fromkeys(("token_url", "revoke_url", "test_url"), allowed),
        setting: server.url,
    }
    async with open_rotator("oauth2", Site(clock=SystemClock(), hosts=frozenset({"login.example"}))) as rotator:
        with pytest.raises(BadSettings, match=setting):
            rotator.check(settings, {"client_secret": "x/y"})
        rotator.check({**settings, setting: allowed}, {"client_secret": "x/y"})
