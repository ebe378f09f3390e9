"""A data key that several KMS keys have wrapped: who is asked, in which order, and whose word counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.vault.errors import KeyCorrupt, KeyDenied, KeyUnavailable
from kms.errors import Corrupt, Denied, Unavailable


async def test_the_first_that_answers_is_enough(open_house: Any) -> None:
    """While the first KMS key answers, the second is not asked."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        assert (await house.vault.open(record)).reveal() == b"value"
        assert [each.unwraps for each in house.kms] == [1, 0]


async def test_the_second_serves_when_the_first_is_away(open_house: Any) -> None:
    """The loss of one KMS does not stop the broker."""
    async with open_house(keys=2) as house:
        house.kms[0].error = Unavailable("away")
        record = await house.put(b"value")
        assert (await house.vault.open(record)).reveal() == b"value"
        assert [each.unwraps for each in house.kms] == [1, 1]


async def test_a_refusal_by_the_first_is_final(open_house: Any) -> None:
    """Whoever disables the first key is not outvoted by the second."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error = Denied("no")
        with pytest.raises(KeyDenied):
            await house.vault.open(record)
        assert house.kms[1].unwraps == 0


async def test_a_refusal_after_silence_is_final(open_house: Any) -> None:
    """A refusal by the second counts though the first does not answer, and evicts what is cached."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.kms[0].error, house.kms[1].error = Unavailable("away"), Denied("no")
        await house.clock.advance(302)
        assert house.vault.counters.evictions["denied"] == 1
        with pytest.raises(KeyDenied):
            await house.vault.open(record)


async def test_a_damaged_wrap_is_passed_over_and_reported(open_house: Any) -> None:
    """One damaged wrap costs nobody a token, and operators hear of it each time."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error = Corrupt("not mine")
        assert (await house.vault.open(record)).reveal() == b"value"
        assert [alarm.kms_key for alarm in house.alarms] == [house.kms[0].uri]


async def test_while_one_is_silent_damage_is_not_certain(open_house: Any) -> None:
    """One wrap damaged and the other key away: unavailable, so that it opens when the other key is back."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error, house.kms[1].error = Corrupt("not mine"), Unavailable("away")
        with pytest.raises(KeyUnavailable):
            await house.vault.open(record)
        house.kms[1].error = None
        await house.clock.advance(1)
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_all_damaged_is_corrupt(open_house: Any) -> None:
    """When every wrap is damaged, the row is."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.fail(Corrupt("not mine"))
        with pytest.raises(KeyCorrupt):
            await house.vault.open(record)


async def test_taking_a_kms_key_out_of_the_keyring_lets_the_next_one_serve(open_house: Any) -> None:
    """The way out when the first KMS key is lost for good: name the others, and their wraps open."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error = Denied("deleted")
        house.keyrings["default"] = msgspec.structs.replace(house.ring, kms_keys=(house.kms[1].uri,))
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_the_keyring_says_the_order(open_house: Any) -> None:
    """Keys are asked in the order in which the keyring names them, whatever the order of the wraps."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        uris = tuple(each.uri for each in reversed(house.kms))
        house.keyrings["default"] = msgspec.structs.replace(house.ring, kms_keys=uris)
        before = [each.unwraps for each in house.kms]
        await house.vault.open(record)
        assert [each.unwraps - was for each, was in zip(house.kms, before, strict=True)] == [0, 1]


async def test_a_keyring_whose_kms_keys_are_not_configured_is_refused(open_house: Any) -> None:
    """No configured key has wrapped the data key: a refusal that says what to do."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.keyrings["default"] = msgspec.structs.replace(house.ring, kms_keys=("local:elsewhere",))
        with pytest.raises(KeyDenied, match="configure one that has, or rewrap"):
            await house.vault.open(record)
