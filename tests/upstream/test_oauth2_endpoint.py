"""What the rotator `oauth2` makes of an authorization server's answers, and of refresh tokens that serve once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from broker.clock import FakeClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.port import Rotation, Rotator, Site

CANARY = "canary-91c2d4"
CLOCK = FakeClock()


@pytest.fixture
async def server(oauth2_standin: ModuleType) -> AsyncIterator[Any]:
    """An authorization server on a socket."""
    async with oauth2_standin.authorising() as running:
        yield running


@pytest.fixture
async def rotator() -> AsyncIterator[Rotator]:
    """The rotator, at a time that stands still."""
    async with open_rotator("oauth2", Site(clock=CLOCK, hosts=frozenset({"127.0.0.1"}))) as opened:
        yield opened


def rotation(server: Any, *, refresh_token: str = "", **changed: str) -> Rotation:
    """One rotation, by the refresh token if there is one."""
    credentials = {"client_secret": Secret(server.client_secret.encode())}
    if refresh_token:
        credentials["refresh_token"] = Secret(refresh_token.encode())
    settings = {
        "grant": "refresh_token" if refresh_token else "client_credentials",
        "token_url": f"{server.url}/token",
        "client_id": server.client_id,
        **changed,
    }
    return Rotation(token="crm/access", settings=settings, credentials=credentials, id="5f2c9a0e1b7d4c3f8a6b2d10")


async def test_the_end_of_a_token_is_told(server: Any, rotator: Rotator) -> None:
    """`expires_in` counts from before the request, so that the token is replaced before it ends."""
    server.expires_in = 600
    made = await rotator.create(rotation(server), None)
    assert made.expires_at == CLOCK.now() + timedelta(seconds=600)


async def test_an_end_that_is_not_told_is_not_made_up(server: Any, rotator: Rotator) -> None:
    """`expires_in` is only recommended."""
    server.expires_in = None
    assert (await rotator.create(rotation(server), None)).expires_at is None


async def test_a_refresh_token_that_serves_once_comes_back_anew(server: Any, rotator: Rotator) -> None:
    """What takes the place of the credential is handed out beside the value, and serves the next time."""
    server.single_use = True
    first = rotation(server, refresh_token=server.authorise())
    made = await rotator.create(first, None)
    second = replace(first, credentials={**first.credentials, **made.credentials})
    assert set(made.credentials) == {"refresh_token"}
    assert (await rotator.create(second, made.value)).value.reveal() != made.value.reveal()


async def test_a_refresh_token_that_is_used_up_asks_for_a_person(server: Any, rotator: Rotator) -> None:
    """Nobody but a person can authorise again, so that it is no outage."""
    server.single_use = True
    once = rotation(server, refresh_token=server.authorise())
    await rotator.create(once, None)
    with pytest.raises(Refused, match=r"invalid_grant.*authorise again"):
        await rotator.create(once, None)


async def test_what_is_wanted_is_asked_for(server: Any, rotator: Rotator) -> None:
    """Scope, audience and resource go along when they are set, and not as empty ones."""
    await rotator.create(rotation(server, scope="a b", audience="https://api", resource="urn:x"), None)
    await rotator.create(rotation(server), None)
    assert server.shown == [
        {"grant_type": "client_credentials", "scope": "a b", "audience": "https://api", "resource": "urn:x"},
        {"grant_type": "client_credentials"},
    ]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_client", BadSettings),
        (400, "invalid_grant", Refused),
        (400, "unauthorized_client", BadSettings),
        (400, "unsupported_grant_type", BadSettings),
        (400, "invalid_scope", BadSettings),
        (400, "invalid_target", BadSettings),
        (400, CANARY, Refused),
        (401, CANARY, BadSettings),
        (429, CANARY, Unreachable),
        (500, CANARY, Failed),
        (500, "server_error", Unreachable),
        (503, "temporarily_unavailable", Unreachable),
    ],
)
async def test_error_codes_say_who_has_to_act(
    server: Any, rotator: Rotator, status: int, code: str, kind: type[UpstreamError]
) -> None:
    """A code of the standard decides, else the status; nothing else of the answer is repeated."""
    told = {"error": code, "error_description": CANARY, "error_uri": CANARY}
    server.answers["/token"] = {"status": status, "text": json.dumps(told)}
    with pytest.raises(UpstreamError) as raised:
        await rotator.create(rotation(server), None)
    assert type(raised.value) is kind
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<html>",
        "[]",
        json.dumps({"access_token": CANARY}),
        json.dumps({"access_token": "", "token_type": "bearer"}),
        json.dumps({"access_token": f"{CANARY}\n", "token_type": "bearer"}),
        json.dumps({"access_token": f"{CANARY} x", "token_type": "bearer"}),
        json.dumps({"access_token": f"{CANARY}ü", "token_type": "bearer"}),
        json.dumps({"access_token": CANARY, "token_type": "mac"}),
        json.dumps({"access_token": CANARY, "token_type": "bearer", "expires_in": "3600"}),
        json.dumps({"access_token": CANARY, "token_type": "bearer", "expires_in": -1}),
        json.dumps({"access_token": CANARY, "token_type": "bearer", "expires_in": 10**30}),
        json.dumps({"access_token": CANARY, "token_type": "bearer", "refresh_token": 7}),
        json.dumps({"access_token": CANARY * 6000, "token_type": "bearer"}),
    ],
    ids=range(14),
)
async def test_an_answer_of_another_form_is_of_no_use(server: Any, rotator: Rotator, answer: str) -> None:
    """What RFC 6749 §5.1 does not know makes no value, and is not repeated."""
    server.answers["/token"] = {"text": answer}
    with pytest.raises(Failed) as raised:
        await rotator.create(rotation(server), None)
    assert CANARY not in f"{raised.value!s} {raised.value.__cause__!r}"


async def test_a_redirect_is_not_followed(server: Any, rotator: Rotator) -> None:
    """The client's secret is for the server that the policy names."""
    server.answers["/token"] = {"status": 308, "headers": {"Location": f"{server.url}/whoami"}}
    with pytest.raises(Refused, match="redirect"):
        await rotator.create(rotation(server), None)


async def test_without_a_place_to_revoke_tokens_end_by_themselves(server: Any, rotator: Rotator) -> None:
    """No `revoke_url` means no request, and no error."""
    made = await rotator.create(rotation(server), None)
    await rotator.finish(rotation(server), Secret(b"new"), made.value)
    await rotator.abandon(rotation(server), made.value)
    assert made.value.reveal().decode() in server.access


@pytest.mark.parametrize(("status", "kind"), [(401, Refused), (403, Refused), (503, Unreachable)])
async def test_an_api_that_does_not_take_a_token_fails_the_test(
    server: Any, rotator: Rotator, status: int, kind: type[UpstreamError]
) -> None:
    """`test_url` has the last word."""
    server.answers["/whoami"] = {"status": status, "text": CANARY}
    tried = rotation(server, test_url=f"{server.url}/whoami")
    made = await rotator.create(tried, None)
    with pytest.raises(kind):
        await rotator.test(tried, made.value)


@pytest.mark.parametrize("value", [b"", b"two words", b"line\nX-More: header", b"\xff"])
async def test_what_no_server_gave_is_not_sent(server: Any, rotator: Rotator, value: bytes) -> None:
    """A value that is no token goes into no header."""
    with pytest.raises(Refused):
        await rotator.test(rotation(server, test_url=f"{server.url}/whoami"), Secret(value))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_not_used(
    server: Any, rotator: Rotator, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It would see every token."""
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert (await rotator.create(rotation(server), None)).value
