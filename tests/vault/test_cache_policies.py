"""How long a data key stays in memory is each keyring's own affair, and a strict keyring keeps none."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.errors import StartRefused
from broker.foundations import vault_settings
from broker.settings import read_settings
from broker.vault.errors import KeyUnavailable
from broker.vault.settings import CachePolicy
from kms.errors import Unavailable

SHORT = {"policies": {"payments": CachePolicy(soft_ttl_s=30, hard_ttl_s=120)}}
STRICT = {"policies": {"default": CachePolicy(soft_ttl_s=300, hard_ttl_s=3600, strict=True)}}


async def test_a_keyring_may_have_a_shorter_soft_ttl(open_house: Any) -> None:
    """Its keys are proved again when its own soft TTL is over; those of other keyrings are not."""
    async with open_house(**SHORT) as house:
        await house.put(b"value")
        await beside(house)
        asked = house.unwraps
        await house.clock.advance(32)
        assert house.unwraps == asked + 1
        assert house.vault.counters.refreshes == 1


async def test_a_keyring_may_have_a_shorter_hard_ttl(open_house: Any) -> None:
    """In an outage its keys go when its own hard TTL is over; those of other keyrings serve on."""
    async with open_house(**SHORT) as house:
        record, other = await house.put(b"value"), await beside(house)
        house.fail(Unavailable("away"))
        await house.clock.advance(118)
        assert house.reveal(other) == b"value"
        await house.clock.advance(4)
        with pytest.raises(KeyUnavailable):
            await house.vault.open(other)
        await house.clock.advance(600)
        assert house.reveal(record) == b"value"


async def test_a_strict_keyring_asks_for_each_request(open_house: Any) -> None:
    """A request that comes a second after the last one asks the KMS, though that gave the key for the last one."""
    async with open_house(**STRICT) as house:
        record = await house.put(b"value")
        for _ in range(3):
            asked = house.unwraps
            await house.clock.advance(1)
            assert house.reveal(record) is None
            assert (await house.vault.open(record)).reveal() == b"value"
            assert house.unwraps == asked + 1


async def test_a_strict_keyring_serves_all_that_waited_by_one_call(open_house: Any) -> None:
    """Those who wait for a key share it, and are served without an await when they are decided again."""
    async with open_house(**STRICT) as house, asyncio.TaskGroup() as tasks:
        record = await house.put(b"value")
        await house.clock.advance(1)
        asked = house.unwraps
        house.kms[0].hold = asyncio.Event()
        waiters = [tasks.create_task(house.vault.open(record)) for _ in range(100)]
        await house.clock.advance(1.9)
        house.kms[0].hold.set()
        assert {(await waiter).reveal() for waiter in waiters} == {b"value"}
        assert house.reveal(record) == b"value"
        assert house.unwraps == asked + 1


async def test_a_strict_keyring_leaves_nothing_in_memory(open_house: Any) -> None:
    """Within two seconds the key is wiped, and the KMS is not asked for it ahead of need."""
    async with open_house(**STRICT) as house:
        await house.put(b"value")
        asked = house.unwraps
        (held,) = house.vault._cache._held.all()
        await house.clock.advance(2)
        assert (len(house.vault._cache), held.live) == (0, False)
        await house.clock.advance(3600)
        assert (house.unwraps, house.vault.counters.refreshes) == (asked, 0)


async def test_no_outage_excuses_a_strict_keyring(open_house: Any) -> None:
    """When the KMS stops answering, what it gave a moment ago serves no longer than its second."""
    async with open_house(**STRICT) as house:
        record = await house.put(b"value")
        house.fail(Unavailable("away"))
        await house.clock.advance(1)
        with pytest.raises(KeyUnavailable):
            await house.vault.open(record)


async def test_the_age_of_what_serves_is_known(open_house: Any) -> None:
    """The oldest key that may serve is as old as its last proof; without one the age is 0."""
    async with open_house() as house:
        await house.put(b"value")
        await house.clock.advance(100)
        assert house.vault.oldest_key_s() == 100
        house.vault.flush()
        assert house.vault.oldest_key_s() == 0


KMS = {"cache_soft_ttl": "100s", "cache_hard_ttl": "1000s"}


@pytest.mark.parametrize(
    ("ring", "policy"),
    [
        pytest.param({}, CachePolicy(soft_ttl_s=100, hard_ttl_s=1000), id="that of kms"),
        pytest.param({"cache_soft_ttl": "30s"}, CachePolicy(soft_ttl_s=30, hard_ttl_s=1000), id="a soft TTL"),
        pytest.param({"cache_hard_ttl": "1h"}, CachePolicy(soft_ttl_s=100, hard_ttl_s=3600), id="a hard TTL"),
        pytest.param({"strict": True}, CachePolicy(soft_ttl_s=100, hard_ttl_s=1000, strict=True), id="strict"),
    ],
)
def test_what_a_keyring_leaves_out_is_as_for_all(ring: dict[str, Any], policy: CachePolicy) -> None:
    """Each keyring has what its section says, and the rest of [kms]; a keyring without a section has all of that."""
    settings = vault_settings(read_settings({"kms": KMS, "keyrings": {"payments": ring}}, {}, where="the test"))
    assert settings.policy("payments") == policy
    assert settings.policy("another") == CachePolicy(soft_ttl_s=100, hard_ttl_s=1000)


@pytest.mark.parametrize(
    ("ring", "why"),
    [
        pytest.param({"cache_hard_ttl": "100s"}, "keyring payments", id="wiped before it is proved again"),
        pytest.param({"cache_soft_ttl": "2000s"}, "keyring payments", id="the same, from the other side"),
        pytest.param({"cache_soft_ttl": "0s"}, "keyring payments", id="no soft TTL"),
        pytest.param({"strict": True, "cache_hard_ttl": "1h"}, "strict keyring", id="strict with a TTL"),
    ],
)
def test_policies_that_contradict_themselves_are_refused(ring: dict[str, Any], why: str) -> None:
    """The broker does not start with them, and the message names the keyring or the contradiction."""
    with pytest.raises(StartRefused, match=why):
        vault_settings(read_settings({"kms": KMS, "keyrings": {"payments": ring}}, {}, where="the test"))


async def beside(house: Any) -> Any:
    """A value in the keyring `payments`."""
    house.keyrings["payments"] = msgspec.structs.replace(house.ring, name="payments", active_data_key="")
    await house.add_data_key("dk-payments", "payments")
    return await house.put(b"value", token="payments/card", keyring="payments")
