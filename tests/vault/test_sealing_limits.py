"""How often, how long and how recently proved a data key may be to seal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from broker.errors import BadRequest, StartRefused
from broker.vault.errors import KeyDenied, KeyUnavailable, ReservationNeeded
from broker.vault.settings import CachePolicy, VaultSettings
from kms.errors import Unavailable


async def test_nothing_is_sealed_without_a_reservation(open_house: Any) -> None:
    """A data key of which this process has reserved nothing seals nothing."""
    async with open_house(with_data_key=False) as house:
        record = await house.vault.generate_data_key(house.ring, data_key="dk-1", now=house.clock.now())
        house.data_keys["dk-1"] = record
        house.keyrings["default"] = msgspec.structs.replace(house.ring, active_data_key="dk-1")
        with pytest.raises(ReservationNeeded) as caught:
            await house.put(b"value")
        assert caught.value.data_key == "dk-1"


async def test_a_block_is_spent_and_then_asked_for_again(open_house: Any) -> None:
    """Exactly seals_block values are sealed per credited block."""
    async with open_house(seals_block=3, seals_max=9) as house:
        for _ in range(3):
            await house.put(b"value")
        with pytest.raises(ReservationNeeded):
            await house.put(b"value")
        house.vault.credit_reservation(house.vault.propose_reservation(house.data_keys["dk-1"]))
        await house.put(b"value")


async def test_a_proposal_raises_the_count_and_drops_the_mac(open_house: Any) -> None:
    """The proposed row is the next revision with one block more, and has to be signed again."""
    async with open_house() as house:
        record = msgspec.structs.replace(house.data_keys["dk-1"], mac=b"signed")
        proposed = house.vault.propose_reservation(record)
        assert (proposed.rev, proposed.seals_reserved, proposed.mac) == (
            record.rev + 1,
            record.seals_reserved + 65_536,
            b"",
        )


async def test_reservations_end_at_the_maximum(open_house: Any) -> None:
    """No block is proposed that would pass seals_max, and the message says to rotate."""
    async with open_house(seals_block=3, seals_max=8) as house:
        record = house.vault.propose_reservation(house.data_keys["dk-1"])
        assert record.seals_reserved == 6
        with pytest.raises(ReservationNeeded, match="rotate"):
            house.vault.propose_reservation(record)


@pytest.mark.parametrize(
    ("age_days", "reserved", "state", "due"),
    [
        (29, 0, "active", False),
        (30, 0, "active", True),
        (0, 2**30 - 65_536, "active", False),
        (0, 2**30 - 65_535, "active", True),
        (99, 2**30, "open", False),
    ],
)
async def test_rotation_is_due_by_age_or_use(
    open_house: Any, age_days: int, reserved: int, state: str, due: bool
) -> None:
    """An active data key is to be replaced at 30 days, or when no whole block of its 2^30 seals is left."""
    async with open_house() as house:
        record = msgspec.structs.replace(house.data_keys["dk-1"], seals_reserved=reserved, state=state)
        now = record.created_at + timedelta(days=age_days)
        assert house.vault.needs_rotation(record, now=now) is due


async def test_an_outage_stops_sealing_before_it_stops_opening(open_house: Any) -> None:
    """Values are sealed for 180 s after the KMS last opened the data key; opening goes on."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.fail(Unavailable("away"))
        await house.clock.advance(179)
        await house.put(b"value", version=2)
        await house.clock.advance(2)
        with pytest.raises(KeyUnavailable):
            await house.put(b"value", version=3)
        assert house.reveal(record) == b"value"


async def test_sealing_proves_the_key_when_it_is_due(open_house: Any) -> None:
    """After 180 s the next seal asks the KMS first, and then goes on."""
    async with open_house() as house:
        await house.put(b"value")
        asked = house.unwraps
        await house.clock.advance(181)
        await house.put(b"value", version=2)
        assert house.unwraps == asked + 1


async def test_a_key_that_is_not_active_seals_nothing(open_house: Any) -> None:
    """A data key that was set to open only opens, though a stale keyring row still names it."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.data_keys["dk-1"] = msgspec.structs.replace(house.data_keys["dk-1"], state="open")
        with pytest.raises(KeyDenied, match="rotate"):
            await house.put(b"value")
        assert (await house.vault.open(record)).reveal() == b"value"


@pytest.mark.parametrize("value", [b"", bytes(65_537)])
async def test_a_value_out_of_bounds_costs_no_seal(open_house: Any, value: bytes) -> None:
    """It is refused before anything is counted or asked."""
    async with open_house(seals_block=1, seals_max=1) as house:
        with pytest.raises(BadRequest):
            await house.put(value)
        await house.put(b"value")


@pytest.mark.parametrize(
    "bounds",
    [
        {"soft_ttl_s": 0},
        {"soft_jitter": 1.0},
        {"hard_ttl_s": 300},
        {"failure_s": 0.01},
        {"seals_max": 2**33},
        {"seals_block": 2**31},
        {"policies": {"payments": CachePolicy(soft_ttl_s=300, hard_ttl_s=300)}},
        {"policies": {"payments": CachePolicy(soft_ttl_s=-1, hard_ttl_s=3600)}},
        {"calls_max": -1},
        {"wait_s": float("nan")},
    ],
)
def test_settings_that_switch_a_protection_off_are_refused(bounds: dict[str, Any]) -> None:
    """The broker does not start with them, and the message names the setting."""
    with pytest.raises(StartRefused, match=r"vault setting|TTL of (the keyrings|keyring payments)"):
        VaultSettings(**bounds)
