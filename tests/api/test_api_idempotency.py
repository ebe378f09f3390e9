"""Repeating a creation under its Idempotency-Key makes nothing further."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import timedelta

import pytest

from broker.api.services import REQUEST_KEY
from storage.records import IdempotencyRecord

GRANT = {"subject": "group:ci", "pattern": "github/*"}


async def grant(site, key="k-1", body=GRANT, role="admin"):
    return await site.ask("POST", "/v1/grants", body, role=role, Idempotency_Key=key)


async def test_a_repeated_creation_shows_what_the_first_one_made(site) -> None:
    """The same request under the same key answers with the same grant, and there is one."""
    first, second = await grant(site), await grant(site)
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    assert first.headers["Location"] == second.headers["Location"]
    assert len(site.broker.authority.grants) == 1


async def test_many_at_once_make_one(site) -> None:
    """Twenty copies of a request in flight together make one grant, and all are answered with it."""
    answers = await asyncio.gather(*(grant(site) for _ in range(20)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["grant"] for answer in answers}) == 1
    assert len(site.broker.authority.grants) == 1


async def test_another_request_under_the_key_is_refused(site) -> None:
    """422, for another body as well as for another path."""
    await grant(site)
    other = await grant(site, body={**GRANT, "pattern": "gitlab/*"})
    assert (other.status, other.code) == (422, "key_reused")
    elsewhere = await site.ask("POST", "/v1/enrolments", {"worker": "ci-1"}, Idempotency_Key="k-1")
    assert elsewhere.status == 422


async def test_keys_belong_to_whoever_sent_them(site) -> None:
    """Two admins may use the same key without knowing of each other."""
    mine, theirs = await grant(site), await grant(site, role="operator")
    assert mine.body["grant"] != theirs.body["grant"]


async def test_a_key_is_good_for_a_day(site) -> None:
    """Afterwards the same request makes something new."""
    first = await grant(site)
    site.clock._start += timedelta(hours=24)
    second = await grant(site)
    assert first.body["grant"] != second.body["grant"]
    assert (await grant(site)).body["grant"] == second.body["grant"]


async def test_a_repeated_put_adds_no_version(site) -> None:
    """The value is stored once; what is shown again is that version as it is now."""
    for _ in range(2):
        answer = await site.ask("POST", "/v1/tokens/a/-/versions", {"value": "x"}, Idempotency_Key="p-1")
        assert (answer.status, answer.body["version"]) == (201, 1)
    await site.put("a", "y")
    again = await site.ask("POST", "/v1/tokens/a/-/versions", {"value": "x"}, Idempotency_Key="p-1")
    assert (again.body["version"], again.body["stage"]) == (1, "previous")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/admins", {"admin": "ann", "roles": ["reader"]}),
        ("/v1/enrolments", {"worker": "ci-1"}),
        ("/v1/admins/reader/credential", None),
    ],
)
async def test_a_secret_is_shown_once(site, path, body) -> None:
    """Repeating a creation that answered with a secret is 409 `shown_once`, without one."""
    first = await site.ask("POST", path, body, Idempotency_Key="s-1")
    assert first.status == 201
    second = await site.ask("POST", path, body, Idempotency_Key="s-1")
    assert (second.status, second.code) == (409, "shown_once")
    assert b"tba_" not in second.raw
    assert b"tbe_" not in second.raw


async def test_a_failed_creation_uses_up_no_key(site) -> None:
    """What was refused may be corrected and sent again under the same key."""
    assert (await grant(site, body={**GRANT, "pattern": "***"})).status == 400
    assert (await grant(site)).status == 201


async def test_an_operation_that_takes_no_key_says_so(site) -> None:
    """A key on a change that does not honour it is refused instead of promising what is not kept."""
    await site.put("a")
    answer = await site.ask("POST", "/v1/tokens/a/-/disable", Idempotency_Key="k")
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("key", ["", "with space", "k" * 129])
async def test_malformed_keys_are_refused(site, key) -> None:
    """A key has 1 to 128 visible ASCII characters."""
    assert (await grant(site, key=key)).code == "bad_request"


async def test_what_is_kept_of_a_request_cannot_be_guessed_at(site) -> None:
    """A copy of the database has no plain hash of a request, which may hold a short password, but one under a key."""
    path, body = "/v1/tokens/db/admin/-/versions", {"value": "hunter2"}
    await site.ask("POST", path, body, Idempotency_Key="k-1")
    (row,) = (await site.broker.storage.select(IdempotencyRecord)).records
    parts = (b"POST", path.encode(), json.dumps(body).encode())
    request = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert row.request_sha256 != hashlib.sha256(request).digest()
    assert row.request_sha256 == hmac.digest(site.broker.root.derive(REQUEST_KEY), request, "sha256")
