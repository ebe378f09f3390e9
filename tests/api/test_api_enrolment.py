"""From a one-time code to a registered worker, without an admin credential."""

from __future__ import annotations

import asyncio

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.api.limits import ApiLimits, Rate
from tokenbroker_client.transcript import enrolment_transcript
from tokenbroker_client.wire import b64

WIDE = Rate(per_s=1e6, burst=1_000_000)


def proof(code: str) -> dict[str, str]:
    """What a machine with a fresh key sends to redeem a code."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signature = key.sign(enrolment_transcript(code_id=code.rpartition(".")[0], public_key=public))
    return {"code": code, "public_key": b64(public), "signature": b64(signature)}


async def issue(site, worker="ci-1") -> str:
    answer = await site.ask("POST", "/v1/enrolments", {"worker": worker, "groups": ["ci"]}, role="operator")
    assert answer.status == 201
    return answer.body["code"]


async def test_a_code_makes_a_worker(site) -> None:
    """Redeeming answers who the worker is and in which cluster; the worker is there with its group."""
    answer = await site.ask("POST", "/v1/enroll", proof(await issue(site)), role=None)
    assert (answer.status, answer.body) == (200, {"worker": "ci-1", "cluster": site.services.cluster_id})
    shown = await site.ask("GET", "/v1/workers/ci-1")
    assert shown.body["groups"] == ["ci"]


async def test_a_hundred_machines_and_one_code_make_one_worker(site) -> None:
    """One redemption is answered 200, the other 99 alike with 401; the worker has one key."""
    code = await issue(site)
    answers = await asyncio.gather(*(site.ask("POST", "/v1/enroll", proof(code), role=None) for _ in range(100)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 99
    refused = {answer.raw for answer in answers if answer.status == 401}
    assert len(refused) == 1
    assert b"enrolment_refused" in refused.pop()
    assert len((await site.ask("GET", "/v1/workers/ci-1")).body["keys"]) == 1


async def test_guessing_codes_is_limited_by_address(open_site) -> None:
    """After a few refused codes the address waits before the next one is looked at."""
    few = ApiLimits(credential=WIDE, address=WIDE, failures=Rate(per_s=0.5, burst=3))
    async with open_site(limits=few) as site:
        wrong = proof("tbe_" + "0" * 24 + "." + "A" * 43)
        statuses = [(await site.ask("POST", "/v1/enroll", wrong, role=None)).status for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        await site.clock.advance(2)
        good = proof(await issue(site))
        assert (await site.ask("POST", "/v1/enroll", good, role=None)).status == 200


async def test_codes_are_listed_without_their_secrets(site) -> None:
    """The list shows for whom and until when, and whether it was used."""
    code = await issue(site)
    await site.ask("POST", "/v1/enroll", proof(code), role=None)
    answer = await site.ask("GET", "/v1/enrolments", role="auditor")
    (item,) = answer.body["items"]
    assert (item["worker"], item["created_by"], item["used_at"] is None) == ("ci-1", "admin:operator", False)
    assert code.rpartition(".")[2].encode() not in answer.raw


async def test_a_worker_is_registered_changed_and_removed(site) -> None:
    """The way without a code: register with a public key, change, add a key, remove it, remove the worker."""
    keys = [b64(Ed25519PrivateKey.generate().public_key().public_bytes_raw()) for _ in range(2)]
    made = await site.ask("POST", "/v1/workers", {"worker": "w", "public_key": keys[0], "labels": {"zone": "eu"}})
    assert (made.status, made.headers["Location"]) == (201, "/v1/workers/w")
    changed = await site.ask(
        "PATCH", "/v1/workers/w", {"groups": ["b", "a"], "expires_at": "2030-01-01T00:00:00+02:00"}
    )
    assert changed.body["groups"] == ["a", "b"]
    assert changed.body["expires_at"] == "2029-12-31T22:00:00Z"
    cleared = await site.ask("PATCH", "/v1/workers/w", {"expires_at": None})
    assert (cleared.body["expires_at"], cleared.body["groups"]) == (None, ["a", "b"])
    added = await site.ask("POST", "/v1/workers/w/keys", {"public_key": keys[1]})
    assert [key["public_key"] for key in added.body["keys"]] == keys
    name = added.body["keys"][0]["key_sha256"]
    assert (await site.ask("DELETE", f"/v1/workers/w/keys/{name}")).body["keys"][0]["public_key"] == keys[1]
    assert (await site.ask("DELETE", "/v1/workers/w")).status == 204
    assert (await site.ask("GET", "/v1/workers/w")).status == 404


async def test_a_key_of_small_order_is_refused(site) -> None:
    """Registering with a public key that anybody can sign for is a bad request with its own code."""
    answer = await site.ask("POST", "/v1/workers", {"worker": "w", "public_key": b64(bytes(32))})
    assert (answer.status, answer.code) == (400, "key_refused")
