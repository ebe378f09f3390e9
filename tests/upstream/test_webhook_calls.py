"""What the rotator `webhook` sends, whom it calls, and what it makes of answers."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

from broker.clock import FakeClock, SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.http import ANSWER_BYTES_MAX
from broker.upstream.port import Rotation, Rotator, Site
from broker.upstream.webhook.signing import read_key, signed_headers

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rotator_webhook.json").read_text(encoding="utf-8"))
TOKEN = "crm/key"
CANARY = "canary-5f0e7c"


@pytest.fixture
async def receiver(webhook_receiver: ModuleType) -> AsyncIterator[Any]:
    """A service on a socket."""
    async with webhook_receiver.receiving() as running:
        yield running


@pytest.fixture
async def rotator(receiver: Any) -> AsyncIterator[Rotator]:
    """The rotator, which may call that service."""
    allowed = frozenset({urlsplit(receiver.url).netloc})
    async with open_rotator("webhook", Site(clock=SystemClock(), webhooks=allowed)) as opened:
        yield opened


def rotation(receiver: Any, **changed: str) -> Rotation:
    """One rotation, for that service."""
    return Rotation(
        token=TOKEN,
        settings={"url": receiver.url, **changed},
        credentials={"signing_key": Secret(receiver.secret)},
        id="5f2c9a0e1b7d4c3f8a6b2d10",
        notes={"made": "earlier"},
    )


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_signatures_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    """What a receiver checks is pinned; the first vector is the standard's own."""
    key = read_key(vector["signing_key"])
    headers = signed_headers(key, message=vector["id"], timestamp=vector["timestamp"], body=vector["body"].encode())
    assert headers["Webhook-Signature"] == vector["signature"]


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    """A short key could be guessed, and a long one is none of the standard's."""
    with pytest.raises(BadSettings, match="signing_key"):
        read_key("whsec_" + b64encode(bytes(size)).decode())


async def test_a_call_says_what_the_specification_says(receiver: Any, rotator: Rotator) -> None:
    """The body has each member, values as text or base64url, and not the key that signs it."""
    await rotator.set(rotation(receiver), Secret("néw".encode()), Secret(b"\xff"))
    headers, body = receiver.calls[-1]
    assert json.loads(body) == {
        "step": "set",
        "rotation": "5f2c9a0e1b7d4c3f8a6b2d10",
        "token": TOKEN,
        "settings": {},
        "credentials": {},
        "notes": {"made": "earlier"},
        "new": {"value": "néw"},
        "current": {"value_b64": "_w"},
    }
    assert headers["Webhook-Id"] == "5f2c9a0e1b7d4c3f8a6b2d10_set"
    assert headers["Content-Type"] == "application/json"


async def test_each_attempt_has_its_own_time(receiver: Any) -> None:
    """The timestamp is that of the attempt, so that a step which is tried for days is not taken for a replay."""
    receiver.answers["set"] = {"status": 204}
    receiver.clock = clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    allowed = frozenset({urlsplit(receiver.url).netloc})
    async with open_rotator("webhook", Site(clock=clock, webhooks=allowed)) as rotator:
        await rotator.test(rotation(receiver), receiver_value(receiver))
        await clock.advance(86_400)
        await rotator.test(rotation(receiver), receiver_value(receiver))
    times = [int(headers["Webhook-Timestamp"]) for headers, _ in receiver.calls]
    assert times == [1767225600, 1767225600 + 86_400]


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.1:{port}"])
async def test_an_allowed_host_is_called(receiver: Any, allowed: str) -> None:
    """A host alone stands for every port of it."""
    site = Site(clock=SystemClock(), webhooks=frozenset({allowed.format(port=urlsplit(receiver.url).port)}))
    async with open_rotator("webhook", site) as rotator:
        await rotator.test(rotation(receiver), receiver_value(receiver))
    assert len(receiver.calls) == 1


@pytest.mark.parametrize("allowed", ["", "127.0.0.1:1", "127.0.0.2", "localhost"])
async def test_no_other_host_is_called(receiver: Any, allowed: str) -> None:
    """A policy that was stored before the configuration was narrowed calls nobody any more."""
    async with open_rotator("webhook", Site(clock=SystemClock(), webhooks=frozenset({allowed}))) as rotator:
        with pytest.raises(BadSettings, match=r"rotation\.webhooks"):
            await rotator.test(rotation(receiver), Secret(b"value"))
    assert receiver.calls == []


async def test_a_redirect_is_not_followed(receiver: Any, rotator: Rotator) -> None:
    """A call is for the host that the configuration allows, and no answer leads it elsewhere."""
    receiver.answers["set"] = {"status": 307, "headers": {"Location": receiver.url}}
    with pytest.raises(Refused, match="redirect"):
        await rotator.set(rotation(receiver), Secret(b"value"), None)
    assert len(receiver.calls) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, Refused),
        (404, Refused),
        (422, Refused),
        (429, Unreachable),
        (500, Failed),
        (503, Unreachable),
    ],
)
async def test_a_status_says_what_became_of_it(
    receiver: Any, rotator: Rotator, status: int, kind: type[UpstreamError]
) -> None:
    """Later, not at all, or broken: as the specification has it, and without a word of the answer."""
    receiver.answers["set"] = {"status": status, "text": CANARY}
    with pytest.raises(UpstreamError) as raised:
        await rotator.set(rotation(receiver), Secret(b"value"), None)
    assert type(raised.value) is kind
    assert CANARY not in str(raised.value)
    assert str(status) in str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        CANARY,
        "[]",
        "{}",
        json.dumps({"value": CANARY, "generate": 24}),
        json.dumps({"value": CANARY, "value_b64": "AA"}),
        json.dumps({"value": 7}),
        json.dumps({"value_b64": f"{CANARY}="}),
        json.dumps({"generate": 15}),
        json.dumps({"generate": 1025}),
        json.dumps({"value": CANARY, "more": 1}),
        json.dumps({"value": CANARY, "expires_at": "2026-01-01T00:00:00"}),
        json.dumps({"value": CANARY, "notes": {str(number): "" for number in range(17)}}),
        json.dumps({"value": CANARY, "credentials": {"signing_key": {"value": CANARY}}}),
        "[" * 20_000,
        '{"value": "' + CANARY,
    ],
    ids=range(16),
)
async def test_an_answer_of_another_form_is_of_no_use(receiver: Any, rotator: Rotator, answer: str) -> None:
    """What is not to the letter of the specification makes no value, and is not repeated."""
    receiver.answers["create"] = {"text": answer}
    with pytest.raises(Failed) as raised:
        await rotator.create(rotation(receiver), None)
    assert CANARY not in f"{raised.value!s} {raised.value.__cause__!r}"


async def test_an_answer_over_the_bound_is_not_read(receiver: Any, rotator: Rotator) -> None:
    """A service cannot fill the broker's memory."""
    receiver.answers["create"] = {"text": json.dumps({"value": "x" * ANSWER_BYTES_MAX})}
    with pytest.raises(Failed, match=str(ANSWER_BYTES_MAX)):
        await rotator.create(rotation(receiver), None)


async def test_what_a_service_tells_of_a_value_is_kept(receiver: Any, rotator: Rotator) -> None:
    """Content type, notes and end come with the value."""
    told = {"value_b64": "_w", "content_type": "x/y", "notes": {"a": "b"}, "expires_at": "2027-01-01T01:00:00+01:00"}
    receiver.answers["create"] = {"text": json.dumps(told)}
    made = await rotator.create(rotation(receiver), None)
    assert made.value.reveal() == b"\xff"
    assert (made.content_type, made.notes) == ("x/y", {"a": "b"})
    assert made.expires_at == datetime(2027, 1, 1, tzinfo=UTC)


async def test_a_service_may_have_values_made(receiver: Any, rotator: Rotator) -> None:
    """The broker draws as many characters as it is told, others each time."""
    receiver.answers["create"] = {"text": json.dumps({"generate": 1024})}
    one, two = [(await rotator.create(rotation(receiver), None)).value.reveal() for _ in range(2)]
    assert len(one) == len(two) == 1024
    assert one != two


async def test_a_service_that_is_away_is_unreachable(receiver: Any) -> None:
    """Nobody listening is worth another attempt."""
    async with open_rotator("webhook", Site(clock=SystemClock(), webhooks=frozenset({"127.0.0.1"}))) as rotator:
        with pytest.raises(Unreachable):
            await rotator.test(rotation(receiver, url="http://127.0.0.1:1/"), Secret(b"value"))


def receiver_value(receiver: Any) -> Secret:
    """A value that the service takes."""
    receiver.target(TOKEN).values.add(b"in-use")
    return Secret(b"in-use")
