"""Keyrings, data keys, and the seals that are set aside for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.admin.asked import NewVersion
from broker.admin.batch import put_each
from broker.admin.errors import Exists
from broker.admin.keys import KeyAdmin
from broker.admin.put import Put
from broker.audit.entries import KeyChanged
from broker.errors import BadRequest, NotFound

ROOT = "admin:root"


async def put(house, token="github/ci"):
    return await house.services.putter.put(NewVersion(token=token, value=b"x"), actor=ROOT)


async def changes(house):
    return [(entry.change, entry.keyring) for entry in await house.recorded() if isinstance(entry, KeyChanged)]


async def test_rotating_seals_with_another_key_and_still_opens_what_the_old_one_sealed(house) -> None:
    """After a rotation the former data key only opens, and values sealed under it are still revealed."""
    old = (await put(house)).version
    rotated = await house.services.keys.rotate("default", actor=ROOT)
    new = (await put(house)).version
    assert old.data_key != new.data_key == rotated.data_key.id
    states = {key.id: key.state for key in house.broker.authority.data_keys}
    assert states == {old.data_key: "open", new.data_key: "active"}
    revealed = await house.services.revealer.reveal("github/ci", version=1, actor=ROOT)
    assert revealed.value.reveal() == b"x"


async def test_a_data_key_that_is_old_is_replaced_by_whoever_seals_next(house) -> None:
    """30 days on, the next put rotates the keyring by itself, once, though many seal at that moment."""
    await put(house)
    house.jump(timedelta(days=30))
    await asyncio.gather(*(put(house, f"t/{n}") for n in range(5)))
    assert [change for change, _ in await changes(house)].count("rotated") == 1
    assert len(house.broker.authority.data_keys) == 2


async def test_seals_are_set_aside_in_blocks_and_not_one_by_one(house) -> None:
    """Many puts at once cost one reservation, which is on the data key's row."""
    await asyncio.gather(*(put(house, f"t/{n}") for n in range(10)))
    (key,) = house.broker.authority.data_keys
    assert key.seals_reserved == 65_536


async def test_a_rotation_meant_for_a_key_that_is_gone_does_nothing(house) -> None:
    """Rotating from a named data key is compare-and-set: it happens once."""
    (key,) = house.broker.authority.data_keys
    keys = house.services.keys
    first = await keys.rotate("default", actor=ROOT, from_data_key=key.id)
    second = await keys.rotate("default", actor=ROOT, from_data_key=key.id)
    assert first.data_key.id == second.data_key.id
    assert len(house.broker.authority.data_keys) == 2


async def test_keyrings_are_added_with_a_key_that_was_opened(house) -> None:
    """A fresh keyring seals at once; one of a taken name, or with unknown KMS keys, is refused and leaves nothing."""
    keys = house.services.keys
    await keys.add_keyring("payments", kms_keys=(), authorize="broker", actor=ROOT)
    new = NewVersion(token="pay/stripe", value=b"x", keyring="payments")
    assert (await house.services.putter.put(new, actor=ROOT)).version.keyring == "payments"
    with pytest.raises(Exists):
        await keys.add_keyring("payments", kms_keys=(), authorize="broker", actor=ROOT)
    with pytest.raises(NotFound):
        await keys.add_keyring("other", kms_keys=("local:/none",), authorize="broker", actor=ROOT)
    with pytest.raises(BadRequest):
        await keys.add_keyring("many", kms_keys=["local:/x"] * 9, authorize="broker", actor=ROOT)
    assert {ring.name for ring in house.broker.authority.keyrings} == {"default", "payments"}


async def test_the_first_keyring_is_made_once(house) -> None:
    """Asking for the default keyring again gives the one there is."""
    keys = KeyAdmin(authority=house.broker.authority, vault=house.broker.vault, clock=house.clock)
    before = house.services.keys.keyring("default")
    assert (await keys.bootstrap()).active_data_key == before.active_data_key
    assert await changes(house) == [("keyring_added", "default"), ("data_key_added", "default")]


async def test_flushing_is_recorded_and_costs_nothing_but_a_call_to_the_kms(house) -> None:
    """After a flush values open as before, and the log has the flush."""
    await put(house)
    await house.services.keys.flush(actor=ROOT)
    revealed = await house.services.revealer.reveal("github/ci", version=None, actor=ROOT)
    assert revealed.value.reveal() == b"x"
    assert (await changes(house))[-1] == ("flushed", "")


async def test_in_a_batch_each_item_stands_for_itself(house) -> None:
    """Bad items are refused one by one, the others stored, several of one token in their order."""
    items = [
        NewVersion(token="a/b", value=b"1"),
        NewVersion(token="No Name", value=b"2"),
        NewVersion(token="a/c", value=b""),
        NewVersion(token="a/b", value=b"3"),
    ]
    results = await put_each(house.services.putter, items, actor=ROOT)
    assert [result.version.version if isinstance(result, Put) else result.code for result in results] == [
        1,
        "bad_request",
        "value_refused",
        2,
    ]
    revealed = await house.services.revealer.reveal("a/b", version=2, actor=ROOT)
    assert revealed.value.reveal() == b"3"
