"""A data key that several KMS keys have wrapped: who is asked, in which order, and whose word counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.vault.errors import CallerDenied, KeyCorrupt, KeyDenied, KeyUnavailable
from broker.vault.failures import FailureKind
from kms.errors import Corrupt, Denied, Disabled, Unavailable
from kms.port import Caller

ALICE = Caller(worker="alice", groups=())
POLICY = """\
format = "tokenbroker/kms-local-policy/v1"
[[allow]]
keyrings = ["default"]
workers = ["alice"]
"""


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


async def test_a_refusal_is_passed_over_and_reported(open_house: Any) -> None:
    """A closed account refuses as loudly as a disabled key: the second KMS key serves, and operators hear of it."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error = Denied("no")
        assert (await house.vault.open(record)).reveal() == b"value"
        assert [(alarm.kms_key, alarm.kind) for alarm in house.alarms] == [(house.kms[0].uri, FailureKind.DENIED)]
        assert house.vault.counters.unwraps["denied", house.kms[0].uri] == 1


async def test_what_a_refusing_kms_key_gave_is_replaced_by_what_another_gives(open_house: Any) -> None:
    """After the refusal nothing is served that the refusing key gave; the copy of the second one is."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        (given,) = house.vault._cache._held.all()
        house.kms[0].error = Denied("no")
        await house.clock.advance(302)
        (held,) = house.vault._cache._held.all()
        assert (given.live, held.kms_key) == (False, house.kms[1].uri)
        assert house.reveal(record) == b"value"


@pytest.mark.parametrize(
    ("proved_by", "answers", "kept"),
    [
        pytest.param(0, (Unavailable("away"), Denied("no")), True, id="first silent, second refuses"),
        pytest.param(0, (Denied("no"), Unavailable("away")), False, id="first refuses, second silent"),
        pytest.param(1, (Denied("no"), Unavailable("away")), True, id="second's copy, and it is silent"),
        pytest.param(1, (Unavailable("away"), Denied("no")), False, id="second's copy, and it refuses"),
        pytest.param(0, (Corrupt("not mine"), Unavailable("away")), False, id="its wrap is damaged"),
        pytest.param(0, (Unavailable("away"), Corrupt("not mine")), True, id="the other wrap is damaged"),
    ],
)
async def test_in_an_outage_only_the_silent_ones_keys_serve_on(
    open_house: Any, proved_by: int, answers: tuple[Exception, Exception], kept: bool
) -> None:
    """A cached key outlives an outage only while the KMS key that gave it is the one that does not answer."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        if proved_by == 1:
            house.vault.flush()
            house.kms[0].error = Unavailable("away")
            await house.vault.open(record)
        house.kms[0].error, house.kms[1].error = answers
        await house.clock.advance(400)
        if kept:
            assert house.reveal(record) == b"value"
            assert sum(house.vault.counters.stale_served.values()) == 1
        else:
            assert len(house.vault._cache) == 0
            with pytest.raises(KeyUnavailable):
                await house.vault.open(record)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        pytest.param((Denied("no"), Unavailable("away")), KeyUnavailable, id="one silent"),
        pytest.param((Unavailable("away"), Disabled("off")), KeyUnavailable, id="the other silent"),
        pytest.param((Denied("no"), Disabled("off")), KeyDenied, id="all refuse"),
        pytest.param((Denied("no"), Corrupt("not mine")), KeyDenied, id="one refuses, one damaged"),
        pytest.param((Corrupt("not mine"), Disabled("off")), KeyDenied, id="one damaged, one disabled"),
    ],
)
async def test_nothing_cached_and_nothing_given(
    open_house: Any, answers: tuple[Exception, Exception], told: type[Exception]
) -> None:
    """While one has not answered it is "try later"; else a refusal counts more than damage."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        house.vault.flush()
        house.kms[0].error, house.kms[1].error = answers
        with pytest.raises(told):
            await house.vault.open(record)


async def test_a_disabled_kms_key_takes_only_what_it_gave(open_house: Any) -> None:
    """Data keys of the disabled KMS key go at once, before their own refresh; those of the other one stay."""
    async with open_house(keys=2) as house:
        first, second = (kms.uri for kms in house.kms)
        await house.put(b"value")
        await house.clock.advance(100)
        await house.add_data_key("dk-2")
        house.kms[0].error = Unavailable("away")
        await house.put(b"value", token="by second")
        house.kms[0].error = None
        await house.add_data_key("dk-3")
        await house.put(b"value", token="by first")
        held = {held.need.record.id: held.kms_key for held in house.vault._cache._held.all()}
        assert held == {"dk-1": first, "dk-2": second, "dk-3": first}
        house.kms[0].error = Disabled("off")
        await house.clock.advance(202)
        held = {held.need.record.id: held.kms_key for held in house.vault._cache._held.all()}
        assert held == {"dk-1": second, "dk-2": second}


async def test_on_behalf_of_a_caller_the_first_refusal_is_final(open_house: Any) -> None:
    """Where the KMS decides per worker, the most lenient of several policies must not become the rule."""
    async with open_house(keys=2, authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        house.kms[0].error = Denied("not alice")
        house.kms[1].unwraps = 0
        with pytest.raises(CallerDenied):
            await house.vault.open(record, ALICE)
        assert house.kms[1].unwraps == 0


async def test_on_behalf_of_a_caller_a_refusal_after_silence_is_final(open_house: Any) -> None:
    """The second's refusal wipes this worker's key at once, though the KMS key that gave it does not answer."""
    async with open_house(keys=2, authorize="kms", policy=POLICY) as house:
        record = await house.put(b"value")
        house.vault.flush()
        await house.vault.open(record, ALICE)
        await house.clock.advance(295)
        house.reveal(record, ALICE)
        house.kms[0].error, house.kms[1].error = Unavailable("away"), Denied("not alice")
        await house.clock.advance(10)
        assert house.vault.counters.evictions["caller_denied"] == 1
        with pytest.raises(CallerDenied):
            await house.vault.open(record, ALICE)


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
