"""Leases and sessions over HTTP, from records that a broker left."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.ids import time_ordered_id
from storage.port import Commit
from storage.records import LeaseRecord, SessionRecord


async def lease(site, token="a", worker="w", *, ago_s=10.0, ttl_s=300.0, session="s1", state="live"):
    granted = site.clock.now() - timedelta(seconds=ago_s)
    ended = None if state == "live" else site.clock.now()
    record = LeaseRecord(
        lease=time_ordered_id(granted),
        token=token,
        version=1,
        worker=worker,
        session=session,
        instance="one",
        grant="g",
        state=state,
        ttl_s=ttl_s,
        granted_at=granted,
        expires_at=granted + timedelta(seconds=ttl_s),
        max_expires_at=granted + timedelta(seconds=3600),
        due_at=granted + timedelta(seconds=ttl_s) if state == "live" else None,
        ended_at=ended,
        prune_at=None if ended is None else ended + timedelta(days=30),
    )
    await site.broker.storage.commit(Commit(inserts=(record,)))
    return record.lease


async def names(site, query=""):
    return [item["lease"] for item in (await site.ask("GET", f"/v1/leases{query}")).body["items"]]


async def test_leases_are_listed_now_then_or_all(site) -> None:
    """Live ones by default, those live at an instant, or every one on record; narrowed by token and worker."""
    live = await lease(site, "a", "w1")
    other = await lease(site, "b", "w2")
    past = await lease(site, "a", "w1", ago_s=1000, ttl_s=100, state="expired")
    assert set(await names(site)) == {live, other}
    assert await names(site, "?token=b") == [other]
    assert await names(site, "?worker=w1") == [live]
    assert set(await names(site, "?all=true")) == {live, other, past}
    then = (site.clock.now() - timedelta(seconds=950)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await names(site, f"?at={then}") == [past]


async def test_a_lease_says_who_has_what_since_when(site) -> None:
    """The fields that operators and their tools rely on."""
    made = await lease(site)
    (item,) = (await site.ask("GET", "/v1/leases")).body["items"]
    assert item["lease"] == made
    assert {name: item[name] for name in ("token", "version", "worker", "session", "instance", "state")} == {
        "token": "a",
        "version": 1,
        "worker": "w",
        "session": "s1",
        "instance": "one",
        "state": "live",
    }
    assert item["acked_version"] == 0


async def test_revoking_names_what_was_revoked_and_who_did_not_wipe(site) -> None:
    """A lease of a worker that is not connected is revoked and reported missing; the log has who and why."""
    made = await lease(site)
    answer = await site.ask("POST", "/v1/leases/revoke", {"token": "a", "reason": "leaked"}, role="operator")
    expected = [{"lease": made, "worker": "w", "token": "a", "member": ""}]
    (missing,) = answer.body.pop("missing")
    assert (answer.status, answer.body) == (200, {"revoked": expected, "wiped": []})
    assert {name: missing[name] for name in expected[0]} == expected[0]
    assert (missing["state"], missing["offline_since"], missing["detail"]) == ("offline", None, "")
    assert missing["expires_at"].endswith("Z")
    assert await names(site) == []
    recorded = await site.recorded()
    assert b'"actor":"admin:operator"' in recorded
    assert b"leaked" in recorded


@pytest.mark.parametrize(
    "body",
    [
        {"reason": "x"},
        {"token": "a", "worker": "w", "reason": "x"},
        {"token": "a"},
        {"token": "a", "reason": ""},
        {"token": "a", "reason": "two\nlines"},
        {"token": "A B", "reason": "x"},
        {"lease": "\u0000", "reason": "x"},
        {"token": "a", "reason": "x", "wait_s": 61},
        {"token": "a", "reason": "x", "wait_s": -1},
    ],
    ids=["none", "two", "no-reason", "empty-reason", "lines", "name", "id", "long", "negative"],
)
async def test_a_revocation_must_say_what_and_why(site, body) -> None:
    """Exactly one of lease, token and worker, a reason, and a wait of at most a minute."""
    made = await lease(site)
    assert (await site.ask("POST", "/v1/leases/revoke", body)).code == "bad_request"
    assert await names(site) == [made]


async def test_sessions_are_listed_with_what_they_hold(site) -> None:
    """Open ones by default, each with the number of its live leases."""
    now = site.clock.now()
    for session, ended in (("s1", None), ("s2", now)):
        record = SessionRecord(
            session=session,
            worker="w",
            instance="one",
            source="192.0.2.1",
            client="x/1",
            connected_at=now,
            ended_at=ended,
            due_at=ended,
        )
        await site.broker.storage.commit(Commit(inserts=(record,)))
    await lease(site, "a")
    await lease(site, "b")
    answer = await site.ask("GET", "/v1/sessions")
    assert [(item["session"], item["leases"]) for item in answer.body["items"]] == [("s1", 2)]
    everyone = (await site.ask("GET", "/v1/sessions?all=true&worker=w")).body["items"]
    assert [item["session"] for item in everyone] == ["s2", "s1"]


async def test_audit_is_verified_and_proved_over_http(site) -> None:
    """Verification answers ok with counts; the proof of an entry that is not there is 404."""
    await site.put("a")
    report = (await site.ask("POST", "/v1/audit/verify", role="auditor")).body
    assert (report["ok"], report["problems"], report["entries"] > 5) == (True, [], True)
    missing = await site.ask("POST", "/v1/audit/prove", {"log": 1, "seq": 10_000}, role="auditor")
    assert (missing.status, missing.code) == (404, "not_found")


async def test_keyrings_rotate_and_flush_over_http(site) -> None:
    """Rotating answers the keyring with another active key; the data keys are listed without bytes."""
    before = (await site.ask("GET", "/v1/keyrings/default")).body["active_data_key"]
    after = (await site.ask("POST", "/v1/keyrings/default/rotate", role="operator")).body["active_data_key"]
    keys = (await site.ask("GET", "/v1/keys")).body["items"]
    assert {key["data_key"]: key["state"] for key in keys} == {before: "open", after: "active"}
    shown = {"data_key", "keyring", "state", "created_at", "seals_reserved", "wraps", "needs_rewrap", "revision"}
    assert set(keys[0]) == shown
    assert (await site.ask("POST", "/v1/keys/flush", role="operator")).status == 204
