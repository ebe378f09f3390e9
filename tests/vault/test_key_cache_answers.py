"""Each answer of a KMS does to a cached data key what the table in broker/vault/key_cache.py says."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from broker.vault.errors import KeyCorrupt, KeyDenied, KeyUnavailable
from broker.vault.failures import FailureKind
from kms.errors import BadKey, Corrupt, Denied, Disabled, Unavailable

SOFT_S = 300
HARD_S = 3600
REFUSALS = [
    pytest.param(Denied("no"), id="denied"),
    pytest.param(Disabled("off"), id="disabled"),
    pytest.param(BadKey("bad"), id="bad key"),
    pytest.param(RuntimeError("something unknown"), id="unknown"),
]


async def test_a_key_is_asked_for_once(open_house: Any) -> None:
    """The first open asks the KMS; those after it do not, and need no await."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.vault.flush()
        before = house.unwraps
        assert (await house.vault.open(record)).reveal() == b"value"
        assert house.reveal(record) == b"value"
        assert house.unwraps == before + 1


async def test_without_a_cached_key_the_fast_path_says_so(open_house: Any) -> None:
    """The vault has no opener, and asks nobody, when the key has to be fetched."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.vault.flush()
        before = house.unwraps
        assert house.reveal(record) is None
        await house.settle()
        assert house.unwraps == before


async def test_an_outage_leaves_a_cached_key_serving_until_its_hard_ttl(open_house: Any) -> None:
    """While the KMS does not answer, what was unwrapped serves to the last second of its hard TTL, and no longer."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.fail(Unavailable("away"))
        for _ in range(35):
            await house.clock.advance(100)
            assert house.reveal(record) == b"value"
        await house.clock.advance(99)
        assert house.reveal(record) == b"value"
        assert set(filter(house.vault.counters.stale_served.get, house.vault.counters.stale_served)) == {
            "10m",
            "30m",
            "1h",
        }
        await house.clock.advance(2)
        with pytest.raises(KeyUnavailable):
            await house.vault.open(record)
        assert house.vault.counters.evictions["expired"] == 1


async def test_an_outage_without_a_cached_key_is_unavailable(open_house: Any) -> None:
    """Nothing to serve from: the worker is told to retry, and nobody is alarmed."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.fail(Unavailable("away"))
        with pytest.raises(KeyUnavailable) as caught:
            await house.vault.open(record)
        assert caught.value.reason == "kms_unavailable"
        assert house.alarms == []


async def test_a_kms_that_never_answers_counts_as_an_outage(open_house: Any) -> None:
    """A call that hangs is given up after call_s, and treated as unavailable."""
    async with open_house(call_s=0.05) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].hold = asyncio.Event()
        with pytest.raises(KeyUnavailable) as caught:
            await house.vault.open(record)
        assert caught.value.reason == "kms_unavailable"


async def test_after_an_outage_keys_are_proved_again(open_house: Any) -> None:
    """The first answer after an outage starts a fresh soft TTL, and the hard TTL anew."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.fail(Unavailable("away"))
        await house.clock.advance(HARD_S - 100)
        house.fail(None)
        await house.clock.advance(60)
        assert house.reveal(record) == b"value"
        house.fail(Unavailable("away again"))
        await house.clock.advance(HARD_S - 100)
        assert house.reveal(record) == b"value"


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_evicts_a_cached_key(open_house: Any, refusal: Exception) -> None:
    """A refusal, or anything unknown, at the next refresh ends the use of the key, without anybody asking for it."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.fail(refusal)
        await house.clock.advance(SOFT_S + 2)
        assert len(house.vault._cache) == 0
        with pytest.raises(KeyDenied):
            await house.vault.open(record)
        assert len(house.alarms) >= 1
        assert house.alarms[0].data_key == "dk-1"


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_fails_closed(open_house: Any, refusal: Exception) -> None:
    """A refusal to a waiting request is told as one, and is not "retry later" by another name."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.fail(refusal)
        with pytest.raises(KeyDenied):
            await house.vault.open(record)


async def test_a_refusal_in_an_outage_ends_it(open_house: Any) -> None:
    """A key that serves on through an outage is wiped by the first refusal."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.fail(Unavailable("away"))
        await house.clock.advance(1000)
        house.fail(Denied("no"))
        await house.clock.advance(60)
        assert len(house.vault._cache) == 0
        with pytest.raises(KeyDenied):
            await house.vault.open(record)


async def test_a_lifted_refusal_is_noticed(open_house: Any) -> None:
    """Once the operator allows the key again, requests are served within seconds."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.fail(Denied("no"))
        await house.clock.advance(SOFT_S + 2)
        house.fail(None)
        await house.clock.advance(6)
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_a_disabled_kms_key_evicts_all_it_gave(open_house: Any) -> None:
    """One data key that finds its KMS key disabled takes the others with it, before their own refresh is due."""
    async with open_house() as house:
        first = await house.put(b"value")
        await house.add_data_key("dk-2")
        second = await house.put(b"value", token="other")
        await house.clock.advance(200)
        third = await _reopened_later(house)
        house.fail(Disabled("off"))
        await house.clock.advance(102)
        assert third not in _cached(house)
        for record in (first, second):
            with pytest.raises(KeyDenied):
                await house.vault.open(record)


async def _reopened_later(house: Any) -> str:
    """A data key whose own refresh is due 200 s after the others'."""
    await house.add_data_key("dk-3")
    await house.put(b"value", token="third")
    return "dk-3"


def _cached(house: Any) -> set[str]:
    return {held.need.record.id for held in house.vault._cache._held.all()}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"error": Corrupt("not mine")}, id="corrupt"),
        pytest.param({"reply": os.urandom(31)}, id="31 bytes"),
        pytest.param({"reply": os.urandom(32)}, id="another key"),
    ],
)
async def test_a_corrupt_answer_quarantines_the_data_key(open_house: Any, spoil: dict[str, Any]) -> None:
    """What is not the key that the row commits to is never cached; the KMS is not asked again, and operators hear."""
    async with open_house() as house:
        record = await house.put(b"value")
        for name, value in spoil.items():
            setattr(house.kms[0], name, value)
        await house.clock.advance(SOFT_S + 2)
        asked = house.unwraps
        await house.clock.advance(HARD_S)
        with pytest.raises(KeyCorrupt):
            await house.vault.open(record)
        assert house.unwraps == asked
        assert {alarm.kind for alarm in house.alarms} == {FailureKind.CORRUPT}
        assert len(house.vault._cache) == 0


async def test_flushing_ends_a_quarantine(open_house: Any) -> None:
    """After the cause is mended, `key flush` makes the broker ask again."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.fail(Corrupt("not mine"))
        with pytest.raises(KeyCorrupt):
            await house.vault.open(record)
        house.fail(None)
        house.vault.flush()
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_a_mended_row_ends_a_quarantine(open_house: Any) -> None:
    """A restored data-key row has other wraps, so it is asked for without anybody flushing."""
    async with open_house() as house:
        record = await house.put(b"value")
        good = house.data_keys["dk-1"]
        changed = msgspec.structs.replace(good.wraps[0], blob=good.wraps[0].blob[:-1] + b"\x00\x01")
        house.data_keys["dk-1"] = msgspec.structs.replace(good, wraps=(changed,))
        with pytest.raises(KeyCorrupt):
            await house.vault.open(record)
        house.data_keys["dk-1"] = good
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_a_failure_is_remembered_for_a_moment(open_house: Any) -> None:
    """For at least 100 ms after a failure, nobody's request reaches the KMS; after that, the next one does."""
    async with open_house(jitter=lambda: 0.0) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.fail(Unavailable("away"))
        with pytest.raises(KeyUnavailable):
            await house.vault.open(record)
        asked = house.unwraps
        await house.clock.advance(0.09)
        for _ in range(100):
            with pytest.raises(KeyUnavailable):
                await house.vault.open(record)
            with pytest.raises(KeyUnavailable):
                house.reveal(record)
        assert house.unwraps == asked
        house.fail(None)
        await house.clock.advance(0.02)
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_repeated_failures_are_remembered_longer(open_house: Any) -> None:
    """During a long outage a key is asked for ever less often, and never less often than every few seconds."""
    async with open_house(jitter=lambda: 0.99, breaker_failures=1000) as house:
        await house.put(b"value")
        house.fail(Unavailable("away"))
        await house.clock.advance(SOFT_S * 1.2 + 60)
        early = house.unwraps
        await house.clock.advance(600)
        assert 60 <= house.unwraps - early <= 150


async def test_a_data_key_of_another_keyring_is_refused_without_asking(open_house: Any) -> None:
    """A version row that names a keyring its data key does not belong to is tampered with."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.keyrings["other"] = msgspec.structs.replace(house.ring, name="other")
        asked = house.unwraps
        with pytest.raises(KeyCorrupt):
            await house.vault.open(msgspec.structs.replace(record, keyring="other"))
        assert house.unwraps == asked


async def test_the_same_wrap_in_another_row_is_asked_for_again(open_house: Any) -> None:
    """The cache never answers for a row that only shares its wrapped bytes with a cached one; and the KMS refuses."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.data_keys["dk-2"] = msgspec.structs.replace(house.data_keys["dk-1"], id="dk-2")
        asked = house.unwraps
        with pytest.raises(KeyCorrupt):
            await house.vault.open(msgspec.structs.replace(record, data_key="dk-2"))
        assert house.unwraps == asked + 1


async def test_a_destroyed_data_key_is_not_served(open_house: Any) -> None:
    """Destroying a data key in the books ends its use at once, though it is cached, and wipes it within a sweep."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.data_keys["dk-1"] = msgspec.structs.replace(house.data_keys["dk-1"], state="destroyed")
        with pytest.raises(KeyDenied, match="destroyed"):
            house.reveal(record)
        await house.clock.advance(2)
        assert len(house.vault._cache) == 0
