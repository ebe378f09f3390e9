"""Leases of the previous version: who may have one, and what becomes of it when the token changes."""

from __future__ import annotations

from typing import Any

import pytest

from broker.admin.asked import NewGrant
from broker.audit.entries import LeaseGranted, LeaseRefused

ROOT = "admin:root"
NAME = "github/ci"


@pytest.fixture
async def allowed(house: Any) -> Any:
    """The house, where ci-1 may have the previous version too, and the token has two."""
    house.both = await house.services.grants.add(
        NewGrant(subject="worker:ci-1", pattern="github/*", ttl_s=30, max_ttl_s=60, previous=True), actor=ROOT
    )
    await house.put(NAME, b"two")
    return house


async def previous(worker: Any, **more: Any) -> dict[str, Any]:
    granted: dict[str, Any] = await worker.ask("lease", token=NAME, stage="previous", **more)
    return granted


async def test_a_grant_has_to_allow_the_previous_version(house: Any, welcomed: Any) -> None:
    """Without it the answer is `denied`, and the record says why; the current version is given as before."""
    await house.put(NAME, b"two")
    async with welcomed(house) as worker:
        assert (await previous(worker))["code"] == "denied"
        assert (await worker.lease(NAME))["value"] == "two"
    assert [entry.reason for entry in await house.entries_within(LeaseRefused, 1)] == ["previous"]


async def test_both_versions_are_leased_beside_each_other(allowed: Any, welcomed: Any) -> None:
    """Two leases of one session, each with the terms of the grant that allows it; the record names the stages."""
    async with welcomed(allowed) as worker:
        now, before = await worker.lease(NAME), await previous(worker)
        assert (now["version"], now["value"], now.get("stage")) == (2, "two", None)
        assert (before["version"], before["stage"], before["ttl_s"]) == (1, "previous", 30)
        assert now["lease"] != before["lease"]
        assert (await previous(worker))["lease"] == before["lease"]
        row = await allowed.row(before["lease"])
        assert (row.stage, row.grant) == ("previous", allowed.both.id)
    granted = await allowed.entries(LeaseGranted)
    assert [(entry.version, entry.stage) for entry in granted] == [(2, "current"), (1, "previous"), (1, "previous")]


async def test_asked_for_at_once_in_both_stages_each_is_one_lease(allowed: Any, welcomed: Any) -> None:
    """Also when all the requests are in one batch."""
    async with welcomed(allowed) as worker:
        for number in range(10):
            await worker.send(type="lease", id=number, token=NAME, **({"stage": "previous"} if number % 2 else {}))
        answers = [await worker.answer(number) for number in range(10)]
        assert len({answer["lease"] for answer in answers}) == 2


async def test_a_rotation_moves_each_lease_on_by_one(allowed: Any, welcomed: Any) -> None:
    """The holder of the previous version gets the one that was current; how long the one before works is not known."""
    async with welcomed(allowed) as worker:
        now, before = await worker.lease(NAME), await previous(worker)
        await allowed.put(NAME, b"three", previous_valid_s=30)
        pushed = {frame["lease"]: frame for frame in [await worker.push(within_s=1), await worker.push(within_s=1)]}
        told = {lease: (frame["version"], frame["value"], frame["previous_valid_s"]) for lease, frame in pushed.items()}
        assert told == {now["lease"]: (3, "three", 30.0), before["lease"]: (2, "two", 0.0)}
        await worker.send(type="ack", lease=before["lease"], version=2, status="applied")
        await worker.ask("renew", leases=[before["lease"]])
        assert (await allowed.row(before["lease"])).acked_version == 2


async def test_going_back_turns_the_two_round(allowed: Any, welcomed: Any) -> None:
    """After a rollback the previous version is the one that was rolled back from."""
    async with welcomed(allowed) as worker:
        before = await previous(worker)
        await allowed.services.tokens.rollback(NAME, actor=ROOT)
        pushed = await worker.push(within_s=1)
        assert (pushed["lease"], pushed["version"], pushed["value"]) == (before["lease"], 2, "two")


@pytest.mark.parametrize("how", ["retire", "destroy"])
async def test_without_a_previous_version_its_leases_are_revoked(allowed: Any, welcomed: Any, how: str) -> None:
    """Retiring or destroying it ends them, and only them; asking again is `not_found`."""
    async with welcomed(allowed) as worker:
        now, before = await worker.lease(NAME), await previous(worker)
        await getattr(allowed.services.tokens, how)(NAME, 1, actor=ROOT)
        pushed = await worker.push(within_s=1)
        assert pushed == {"type": "revoked", "leases": [before["lease"]], "reason": "no_previous_version"}
        assert (await previous(worker))["code"] == "not_found"
        assert (await worker.ask("renew", leases=[now["lease"]]))["gone"] == []


async def test_a_grant_that_goes_takes_the_previous_version_along(allowed: Any, welcomed: Any) -> None:
    """The other grant covers the token, but only its current version."""
    async with welcomed(allowed) as worker:
        now, before = await worker.lease(NAME), await previous(worker)
        await allowed.services.grants.remove(allowed.both.id, actor=ROOT)
        assert (await worker.push(within_s=1))["leases"] == [before["lease"]]
        assert (await worker.ask("renew", leases=[now["lease"]]))["gone"] == []


async def test_both_are_resumed_each_in_its_stage(allowed: Any, welcomed: Any) -> None:
    """A later session takes both over; a rotation meanwhile brings each its own value."""
    async with welcomed(allowed) as worker:
        now, before = await worker.lease(NAME), await previous(worker)
    await allowed.put(NAME, b"three")
    held = [{"lease": now["lease"], "version": 2}, {"lease": before["lease"], "version": 1}]
    async with welcomed(allowed) as worker:
        answer = await worker.ask("resume", leases=held)
        assert answer["gone"] == []
        assert {frame["lease"]: frame["version"] for frame in answer["rotated"]} == {
            now["lease"]: 3,
            before["lease"]: 2,
        }
        assert (await previous(worker))["lease"] == before["lease"]


async def test_a_disabled_token_is_leased_in_no_stage(allowed: Any, welcomed: Any) -> None:
    """Disabling revokes both."""
    async with welcomed(allowed) as worker:
        leases = {(await worker.lease(NAME))["lease"], (await previous(worker))["lease"]}
        await allowed.services.tokens.disable(NAME, actor=ROOT)
        pushed = [await worker.push(within_s=1), await worker.push(within_s=1)]
        assert {lease for frame in pushed for lease in frame["leases"]} == leases
