"""Version rows open only in their place; data keys are made, moved to other KMS keys, and replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.errors import NotFound
from broker.vault.errors import KeyCorrupt, KeyDenied, KeyUnavailable, SealBroken
from kms.errors import Denied, Unavailable


@pytest.mark.parametrize(
    "moved",
    [{"token": "github/other"}, {"version": 2}, {"fmt": 2}, {"sealed": b""}, {"sealed": bytes(328)}],
    ids=lambda moved: next(iter(moved)),
)
async def test_a_row_that_was_changed_does_not_open(open_house: Any, moved: dict[str, Any]) -> None:
    """Moved to another token, replayed as another version, relabelled or overwritten, it is broken, and named."""
    async with open_house() as house:
        record = await house.put(b"value")
        with pytest.raises(SealBroken, match="version"):
            house.reveal(msgspec.structs.replace(record, **moved))


async def test_an_opener_opens_every_version_under_its_data_key(open_house: Any) -> None:
    """One look at the key cache serves many versions, and not those of another data key."""
    async with open_house() as house:
        records = [await house.put(f"value-{number}".encode(), version=number) for number in range(1, 4)]
        await house.add_data_key("dk-2")
        other = await house.put(b"other")
        opener = house.vault.opener("dk-1", "default")
        assert [opener.reveal(record) for record in records] == [b"value-1", b"value-2", b"value-3"]
        with pytest.raises(SealBroken):
            opener.reveal(other)


async def test_an_opener_that_was_kept_too_long_cries_no_tampering(open_house: Any) -> None:
    """A key that was wiped meanwhile makes a value unavailable; the row is not blamed."""
    async with open_house() as house:
        record = await house.put(b"value")
        opener = house.vault.opener("dk-1", "default")
        house.vault.flush()
        with pytest.raises(KeyUnavailable, match="wiped"):
            opener.reveal(record)


async def test_swapped_values_do_not_open(open_house: Any) -> None:
    """Two rows whose sealed values were exchanged both stay shut."""
    async with open_house() as house:
        one, two = await house.put(b"one", token="one"), await house.put(b"two", token="two")
        for row, sealed in ((one, two.sealed), (two, one.sealed)):
            with pytest.raises(SealBroken):
                await house.vault.open(msgspec.structs.replace(row, sealed=sealed))


async def test_a_row_under_another_data_key_does_not_open(open_house: Any) -> None:
    """A version row that was pointed at another genuine data key of its keyring stays shut."""
    async with open_house() as house:
        record = await house.put(b"value")
        await house.add_data_key("dk-2")
        with pytest.raises(SealBroken):
            await house.vault.open(msgspec.structs.replace(record, data_key="dk-2"))


async def test_a_row_of_an_unknown_data_key_is_refused(open_house: Any) -> None:
    """A data key that the books do not hold is not asked for."""
    async with open_house() as house:
        record = await house.put(b"value")
        with pytest.raises(KeyCorrupt, match="not on record"):
            await house.vault.open(msgspec.structs.replace(record, data_key="dk-9"))


async def test_swapped_wraps_are_found_out(open_house: Any) -> None:
    """A data-key row that carries the wraps of another does not open, whatever its KMS says."""
    async with open_house() as house:
        record = await house.put(b"value")
        other = await house.add_data_key("dk-2")
        house.data_keys["dk-1"] = msgspec.structs.replace(house.data_keys["dk-1"], wraps=other.wraps)
        with pytest.raises(KeyCorrupt):
            await house.vault.open(record)


async def test_a_data_key_has_a_wrap_of_every_kms_key(open_house: Any) -> None:
    """The record names them in the keyring's order, has a commitment, no reservation, and no MAC yet."""
    async with open_house(keys=2) as house:
        record = await house.vault.generate_data_key(house.ring, data_key="dk-9", now=house.clock.now())
        assert [wrap.kms_key for wrap in record.wraps] == [each.uri for each in house.kms]
        assert (record.id, record.keyring, record.state) == ("dk-9", "default", "active")
        assert (len(record.commitment), record.seals_reserved, record.mac, record.rev) == (32, 0, b"", 1)
        assert record.created_at == house.clock.now()


@pytest.mark.parametrize(
    ("error", "raised"), [(Unavailable("away"), KeyUnavailable), (Denied("no"), KeyDenied), (OSError("x"), KeyDenied)]
)
async def test_a_data_key_needs_every_kms_key(open_house: Any, error: Exception, raised: type[Exception]) -> None:
    """If one of them does not wrap, none is made: a data key that one KMS cannot open is found out too late."""
    async with open_house(keys=2) as house:
        house.kms[1].error = error
        with pytest.raises(raised):
            await house.vault.generate_data_key(house.ring, data_key="dk-9", now=house.clock.now())


async def test_a_wrap_that_opens_to_something_else_is_not_believed(open_house: Any) -> None:
    """What a KMS key wraps is opened again before anything is sealed under it."""
    async with open_house() as house:
        house.kms[0].reply = bytes(32)
        with pytest.raises(KeyCorrupt):
            await house.vault.generate_data_key(house.ring, data_key="dk-9", now=house.clock.now())


async def test_a_keyring_with_an_unknown_kms_key_makes_no_data_key(open_house: Any) -> None:
    """A configured name that is not open is an error, not a wrap fewer."""
    async with open_house() as house:
        ring = msgspec.structs.replace(house.ring, kms_keys=(house.kms[0].uri, "local:elsewhere"))
        with pytest.raises(NotFound, match="local:elsewhere"):
            await house.vault.generate_data_key(ring, data_key="dk-9", now=house.clock.now())


async def test_rewrapping_moves_a_data_key_to_another_kms_key(open_house: Any) -> None:
    """The next revision has exactly the wraps asked for, and what was sealed before opens through them."""
    async with open_house(keys=2) as house:
        record = await house.put(b"value")
        before = house.data_keys["dk-1"]
        after = await house.vault.rewrap(before, [house.kms[1].uri])
        assert [wrap.kms_key for wrap in after.wraps] == [house.kms[1].uri]
        assert (after.rev, after.mac, after.commitment) == (before.rev + 1, b"", before.commitment)
        house.data_keys["dk-1"] = after
        house.kms[0].error = Denied("gone")
        assert (await house.vault.open(record)).reveal() == b"value"


async def test_rewrapping_takes_no_key_from_an_outage(open_house: Any) -> None:
    """Rewrapping wants a data key that its KMS has lately opened, and changes nothing otherwise."""
    async with open_house() as house:
        await house.put(b"value")
        house.fail(Unavailable("away"))
        await house.clock.advance(200)
        with pytest.raises(KeyUnavailable):
            await house.vault.rewrap(house.data_keys["dk-1"], [house.kms[0].uri])


async def test_rewrapping_refuses_a_record_that_is_not_on_record(open_house: Any) -> None:
    """A data key is not wrapped under another one's commitment."""
    async with open_house() as house:
        await house.put(b"value")
        other = msgspec.structs.replace(house.data_keys["dk-1"], commitment=bytes(32))
        with pytest.raises(KeyCorrupt):
            await house.vault.rewrap(other, [house.kms[0].uri])


async def test_resealing_moves_a_value_to_the_active_data_key(open_house: Any) -> None:
    """The same token and version open to the same value under the newer data key, without the older one."""
    async with open_house() as house:
        record = await house.put(b"value", version=7)
        await house.add_data_key("dk-2")
        sealed = await house.vault.reseal(record, house.ring)
        assert (sealed.data_key, sealed.keyring, sealed.fmt) == ("dk-2", "default", 1)
        moved = msgspec.structs.replace(record, data_key=sealed.data_key, sealed=sealed.blob)
        del house.data_keys["dk-1"]
        assert (await house.vault.open(moved)).reveal() == b"value"


async def test_resealing_into_another_keyring(open_house: Any) -> None:
    """A token that moves to another keyring opens under that keyring's data key."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.keyrings["payments"] = msgspec.structs.replace(house.ring, name="payments")
        await house.add_data_key("dk-p", keyring="payments")
        sealed = await house.vault.reseal(record, house.keyrings["payments"])
        moved = msgspec.structs.replace(record, keyring=sealed.keyring, data_key=sealed.data_key, sealed=sealed.blob)
        assert (await house.vault.open(moved)).reveal() == b"value"


async def test_the_users_error_leaves_the_vault_as_it_is(open_house: Any) -> None:
    """What goes wrong in the body of the context is not wrapped in anything."""
    with pytest.raises(ZeroDivisionError):
        async with open_house():
            raise ZeroDivisionError


async def test_cancelling_the_body_ends_the_vault(open_house: Any) -> None:
    """A vault whose owner is cancelled wipes its keys, and the cancellation goes on."""
    ready, keys = asyncio.Event(), []

    async def own() -> None:
        async with open_house() as house:
            await house.put(b"value")
            keys.extend(held.key for held in house.vault._cache._held.all())
            ready.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        owner = tasks.create_task(own())
        await ready.wait()
        owner.cancel()
    assert owner.cancelled()
    assert [bytes(key) for key in keys] == [b""]


async def test_a_bug_in_the_background_stops_the_broker(open_house: Any) -> None:
    """An alarm that raises against its contract ends the vault loudly, and its waiter without hanging."""

    def broken(failure: object) -> None:
        raise ZeroDivisionError(failure)

    async def use() -> None:
        async with open_house(alarm=broken) as house:
            record = await house.put(b"value")
            house.vault.flush()
            house.fail(Denied("no"))
            await house.vault.open(record)

    with pytest.raises(BaseExceptionGroup) as caught:
        await use()
    assert caught.value.subgroup(ZeroDivisionError)
