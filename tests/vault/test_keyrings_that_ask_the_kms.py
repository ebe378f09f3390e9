"""Where a keyring authorises at its KMS, each worker's key is unwrapped for that worker, and cached for it alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.vault.errors import CallerDenied, KeyDenied
from broker.vault.needs import make_need
from kms.errors import Denied, Disabled
from kms.port import Caller

ALICE = Caller(worker="alice", groups=("payments", "ci"))
BOB = Caller(worker="bob", groups=())
POLICY = """\
format = "tokenbroker/kms-local-policy/v1"
[[allow]]
keyrings = ["default"]
workers = ["alice"]
"""


async def test_the_kms_decides_per_worker(open_house: Any) -> None:
    """Who the KMS's policy allows gets the value; who it does not is denied, though the key is cached for another."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        assert (await house.vault.open(record, ALICE)).reveal() == b"value"
        assert house.reveal(record, BOB) is None
        with pytest.raises(CallerDenied):
            await house.vault.open(record, BOB)
        with pytest.raises(CallerDenied):
            house.reveal(record, BOB)
        assert house.reveal(record, ALICE) == b"value"


async def test_the_kms_is_told_who_asks(open_house: Any) -> None:
    """Worker and groups reach the KMS as they are; for sealing, the broker speaks for itself."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        await house.vault.open(record, ALICE)
        assert house.kms[0].callers == [None, ALICE]


async def test_nobody_is_not_a_worker(open_house: Any) -> None:
    """Without a caller such a keyring stays shut, whatever the broker itself holds for sealing."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        with pytest.raises(CallerDenied):
            house.reveal(record)
        with pytest.raises(CallerDenied):
            await house.vault.open(record)


async def test_a_worker_that_loses_the_right_loses_the_key(open_house: Any) -> None:
    """At its next refresh a denied worker's own key is wiped; others keep theirs, and nobody is alarmed."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        await house.vault.open(record, ALICE)
        await house.clock.advance(200)
        house.reveal(record, ALICE)
        house.fail(Denied("no longer"))
        await house.clock.advance(90)
        house.reveal(record, ALICE)
        await house.clock.advance(15)
        assert house.vault.counters.evictions["caller_denied"] == 1
        with pytest.raises(CallerDenied):
            await house.vault.open(record, ALICE)


async def test_a_disabled_kms_key_is_nobodys_fault(open_house: Any) -> None:
    """A worker is not told that it is denied when the KMS key is off for all."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        house.fail(Disabled("off"))
        with pytest.raises(KeyDenied):
            await house.vault.open(record, ALICE)


async def test_a_gone_workers_key_is_not_kept_warm(open_house: Any) -> None:
    """A worker's own key that it does not use for a soft TTL is wiped, and not proved again in its name."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        await house.vault.open(record, ALICE)
        house.kms[0].callers.clear()
        await house.clock.advance(400)
        assert ALICE not in house.kms[0].callers


async def test_other_keyrings_never_name_the_worker(open_house: Any) -> None:
    """Where the broker decides, the KMS is not told who asks, and one cached key serves all workers."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].callers.clear()
        await house.vault.open(record, ALICE)
        assert house.reveal(record, BOB) == b"value"
        assert house.kms[0].callers == [None]


async def test_turning_authorisation_on_ends_shared_use_at_once(open_house: Any) -> None:
    """When a keyring starts to authorise at its KMS, what was cached for everybody serves no worker any more."""
    async with open_house(policy=POLICY) as house:
        record = await house.put(b"value")
        assert house.reveal(record, BOB) == b"value"
        house.keyrings["default"] = msgspec.structs.replace(house.ring, authorize="kms")
        assert house.reveal(record, BOB) is None


async def test_turning_authorisation_off_wipes_each_workers_own_key(open_house: Any) -> None:
    """Keys that were unwrapped for one worker do not outlive the rule that they were unwrapped under."""
    async with open_house(authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        await house.vault.open(record, ALICE)
        house.keyrings["default"] = msgspec.structs.replace(house.ring, authorize="broker")
        await house.clock.advance(2)
        assert house.vault.counters.evictions["replaced"] == 1


async def test_every_input_of_the_decision_is_in_the_cache_key(open_house: Any) -> None:
    """Row, keyring, wraps, their order and versions, KMS keys, cluster, worker, groups: another one, another entry."""
    async with open_house(keys=2) as house:
        record = house.data_keys["dk-1"]
        uris = [each.uri for each in house.kms]
        wrap = record.wraps[0]
        replace = msgspec.structs.replace
        needs = [
            make_need(record=record, kms_keys=uris, cluster_id="c"),
            make_need(record=record, kms_keys=uris, cluster_id="d"),
            make_need(record=record, kms_keys=uris[::-1], cluster_id="c"),
            make_need(record=record, kms_keys=uris[:1], cluster_id="c"),
            make_need(record=replace(record, id="dk-2"), kms_keys=uris, cluster_id="c"),
            make_need(record=replace(record, keyring="other"), kms_keys=uris, cluster_id="c"),
            make_need(record=replace(record, commitment=bytes(32)), kms_keys=uris, cluster_id="c"),
            make_need(record=replace(record, wraps=(replace(wrap, key_version="9"),)), kms_keys=uris, cluster_id="c"),
            make_need(record=replace(record, wraps=(replace(wrap, blob=b"x"),)), kms_keys=uris, cluster_id="c"),
            make_need(record=record, kms_keys=uris, cluster_id="c", caller=Caller(worker="a", groups=())),
            make_need(record=record, kms_keys=uris, cluster_id="c", caller=Caller(worker="b", groups=())),
            make_need(record=record, kms_keys=uris, cluster_id="c", caller=Caller(worker="a", groups=("b",))),
            make_need(record=record, kms_keys=uris, cluster_id="c", caller=Caller(worker="a", groups=("b", "c"))),
            make_need(record=record, kms_keys=uris, cluster_id="c", caller=Caller(worker="a", groups=("bc",))),
        ]
        assert len({need.id for need in needs}) == len(needs)


async def test_the_order_of_groups_does_not_matter(open_house: Any) -> None:
    """A worker that states its groups in another order is the same worker."""
    async with open_house() as house:
        record, uris = house.data_keys["dk-1"], [house.kms[0].uri]
        one = Caller(worker="a", groups=("x", "y"))
        other = Caller(worker="a", groups=("y", "x"))
        ids = {make_need(record=record, kms_keys=uris, cluster_id="c", caller=each).id for each in (one, other)}
        assert len(ids) == 1
