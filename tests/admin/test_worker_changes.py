"""What operators do to workers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.admin.errors import Exists, InUse, KeyRefused, PreconditionFailed, TooMany
from broker.admin.public_key import key_sha256
from broker.admin.workers import NewWorker
from broker.audit.entries import WorkerChanged
from broker.errors import BadRequest, NotFound

ROOT = "admin:root"


def fresh_key() -> bytes:
    return Ed25519PrivateKey.generate().public_key().public_bytes_raw()


async def register(house, name="ci-1", **more):
    new = NewWorker(name=name, **{"public_key": fresh_key(), "groups": ["ci"], **more})
    return await house.services.workers.register(new, actor=ROOT)


async def test_a_registered_worker_is_in_the_book_with_its_key(house) -> None:
    """Registering stores name, sorted groups, key and labels, and records the key's hash."""
    key = fresh_key()
    await register(house, public_key=key, groups=["b", "a", "b"], labels={"zone": "eu"})
    worker = house.services.workers.get("ci-1")
    assert (worker.groups, worker.labels, worker.keys[0].public_key) == (("a", "b"), {"zone": "eu"}, key)
    entry = next(entry for entry in await house.recorded() if isinstance(entry, WorkerChanged))
    assert (entry.change, entry.key_sha256, entry.groups) == ("registered", key_sha256(key), ("a", "b"))


async def test_a_name_is_registered_once(house) -> None:
    """A second registration of a name is refused and leaves the first one's key."""
    first = await register(house)
    with pytest.raises(Exists):
        await register(house)
    assert house.services.workers.get("ci-1").keys == first.keys


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"name": "CI 1"}, BadRequest),
        ({"public_key": bytes(32)}, KeyRefused),
        ({"groups": ["No Group"]}, BadRequest),
        ({"groups": [f"g{n}" for n in range(65)]}, BadRequest),
        ({"labels": {"": "x"}}, BadRequest),
    ],
    ids=["name", "key", "group", "groups", "label"],
)
async def test_what_a_worker_may_not_be_is_refused(house, more, error) -> None:
    """Each bound of a registration has its typed error, and nothing is stored."""
    with pytest.raises(error):
        await register(house, **more)
    assert len(house.broker.authority.workers) == 0


async def test_an_expiry_must_be_ahead_and_is_kept_in_utc(house) -> None:
    """A worker cannot be registered expired; an instant in another zone is kept as the same instant in UTC."""
    now = house.clock.now()
    with pytest.raises(BadRequest, match="expires_at"):
        await register(house, expires_at=now)
    with pytest.raises(BadRequest, match="hundred years"):
        await register(house, expires_at=now + timedelta(days=40_000))
    worker = await register(house, expires_at=now + timedelta(days=1))
    assert worker.expires_at == now + timedelta(days=1)


async def test_only_what_is_named_changes(house) -> None:
    """An update replaces the named fields; null takes an expiry away."""
    now = house.clock.now()
    await register(house, expires_at=now + timedelta(days=1), labels={"a": "1"})
    workers = house.services.workers
    after = await workers.update("ci-1", changes={"groups": ("prod",), "single_session": True}, actor=ROOT)
    assert (after.groups, after.single_session, after.labels) == (("prod",), True, {"a": "1"})
    assert after.expires_at is not None
    after = await workers.update("ci-1", changes={"expires_at": None}, actor=ROOT)
    assert after.expires_at is None


async def test_a_stale_revision_changes_nothing(house) -> None:
    """Compare-and-set on workers."""
    first = await register(house)
    await house.services.workers.disable("ci-1", actor=ROOT, if_match=first.rev)
    with pytest.raises(PreconditionFailed):
        await house.services.workers.enable("ci-1", actor=ROOT, if_match=first.rev)
    assert house.services.workers.get("ci-1").disabled


async def test_keys_are_added_up_to_their_bound_and_removed_down_to_one(house) -> None:
    """A worker has one to eight keys; adding a key it has, or removing one it lacks, is told apart."""
    await register(house)
    workers = house.services.workers
    keys = [fresh_key() for _ in range(7)]
    for key in keys:
        await workers.add_key("ci-1", key, actor=ROOT)
    with pytest.raises(TooMany):
        await workers.add_key("ci-1", fresh_key(), actor=ROOT)
    rev = workers.get("ci-1").rev
    assert (await workers.add_key("ci-1", keys[0], actor=ROOT)).rev == rev
    for key in keys:
        await workers.remove_key("ci-1", key_sha256(key), actor=ROOT)
    with pytest.raises(NotFound):
        await workers.remove_key("ci-1", key_sha256(keys[0]), actor=ROOT)
    last = workers.get("ci-1").keys[0].public_key
    with pytest.raises(InUse):
        await workers.remove_key("ci-1", key_sha256(last), actor=ROOT)


async def test_removing_a_worker_takes_its_unused_codes_along(house) -> None:
    """A code issued before the removal cannot bring the worker back."""
    await register(house)
    await house.services.enrolment.issue("ci-1", groups=[], actor=ROOT)
    await house.services.enrolment.issue("ci-2", groups=[], actor=ROOT)
    await house.services.workers.remove("ci-1", actor=ROOT)
    with pytest.raises(NotFound):
        house.services.workers.get("ci-1")
    assert [code.worker for code in house.broker.authority.enrolments] == ["ci-2"]
