"""Adding, removing and testing grants."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.admin.asked import NewGrant
from broker.admin.workers import NewWorker
from broker.audit.entries import GrantChanged
from broker.errors import BadRequest, NotFound

ROOT = "admin:root"


async def add(house, **more):
    new = NewGrant(**{"subject": "group:ci", "pattern": "github/*", **more})
    return await house.services.grants.add(new, actor=ROOT)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({}, (300, 3600)),
        ({"ttl_s": 7200}, (7200, 7200)),
        ({"max_ttl_s": 60}, (60, 60)),
        ({"ttl_s": 10, "max_ttl_s": 20}, (10, 20)),
    ],
    ids=["none", "long", "short", "both"],
)
async def test_times_left_out_have_sensible_defaults(house, asked, got) -> None:
    """5 minutes and an hour, stretched or cut by whichever of the two is given."""
    grant = await add(house, **asked)
    assert (grant.ttl_s, grant.max_ttl_s) == got


@pytest.mark.parametrize(
    "more",
    [
        {"subject": "nobody"},
        {"pattern": "a/**/b"},
        {"ttl_s": 0},
        {"ttl_s": 20, "max_ttl_s": 10},
        {"source_cidrs": ["10.0.0.0/33"]},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_malformed_grants_are_refused(house, more) -> None:
    """What the policy refuses is a bad request, and nothing is stored."""
    with pytest.raises(BadRequest):
        await add(house, **more)
    assert len(house.broker.authority.grants) == 0


async def test_a_grant_that_is_over_already_is_refused(house) -> None:
    """An expiry has to be ahead of the broker's clock."""
    with pytest.raises(BadRequest):
        await add(house, expires_at=house.clock.now() - timedelta(seconds=1))


async def test_grants_come_and_go_on_record(house) -> None:
    """Adding and removing leave one entry each, naming subject and pattern; a removed grant is gone."""
    grant = await add(house)
    await house.services.grants.remove(grant.id, actor=ROOT)
    with pytest.raises(NotFound):
        house.services.grants.get(grant.id)
    entries = [entry for entry in await house.recorded() if isinstance(entry, GrantChanged)]
    assert [(entry.change, entry.subject, entry.pattern) for entry in entries] == [
        ("added", "group:ci", "github/*"),
        ("removed", "group:ci", "github/*"),
    ]


async def test_a_test_names_the_grant_or_the_near_miss(house) -> None:
    """Testing says which grant allows it through which group, and otherwise why none does."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    await house.services.workers.register(NewWorker(name="ci-1", public_key=key, groups=["ci"]), actor=ROOT)
    grant = await add(house)
    yes = house.services.grants.test(worker="ci-1", token="github/ci", source=None)
    assert yes.decision.grant is not None
    assert yes.decision.grant.id == grant.id
    no = house.services.grants.test(worker="ci-1", token="gitlab/ci", source=None)
    assert not no.decision.allowed
    assert any(grant.id in line for line in no.lines)
    with pytest.raises(NotFound):
        house.services.grants.test(worker="ci-2", token="github/ci", source=None)
