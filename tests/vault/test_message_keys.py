"""What was derived for one value opens that value, nothing else, and no longer than its data key is held."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.vault.chunked import MessageKey, seal_chunked
from broker.vault.errors import KeyUnavailable, SealBroken
from broker.vault.held_keys import HeldKey
from broker.vault.message_keys import MessageKeys

KEY, CONTEXT = bytes(range(32)), b"here"
CHUNK = 16_384


@pytest.mark.parametrize("size", [0, 1, 256, 4096, CHUNK - 1])
def test_a_message_key_opens_what_the_library_sealed(size: int) -> None:
    """Whatever fits one chunk opens, again and again, to what was sealed."""
    message = bytes(index % 251 for index in range(size))
    sealed = seal_chunked(key=KEY, context=CONTEXT, message=message)
    key = MessageKey(key=KEY, context=CONTEXT, sealed=sealed)
    assert [key.open(sealed), key.open(sealed)] == [message, message]


@pytest.mark.parametrize("size", [CHUNK, CHUNK + 1])
def test_a_message_of_several_chunks_is_not_for_it(size: int) -> None:
    """A full chunk is never the last one, so what begins with one is refused, whole or cut behind it."""
    sealed = seal_chunked(key=KEY, context=CONTEXT, message=bytes(size))
    for seen in (sealed, sealed[: 56 + CHUNK + 16]):
        with pytest.raises(SealBroken):
            MessageKey(key=KEY, context=CONTEXT, sealed=seen)


@pytest.mark.parametrize("at", [0, 23, 24, 55, 56, 311, 312, 327])
def test_a_changed_byte_is_seen(at: int) -> None:
    """In salt, commitment, ciphertext and tag."""
    sealed = bytearray(seal_chunked(key=KEY, context=CONTEXT, message=bytes(256)))
    sealed[at] ^= 1
    with pytest.raises(SealBroken):
        MessageKey(key=KEY, context=CONTEXT, sealed=bytes(sealed)).open(bytes(sealed))


@pytest.mark.parametrize("given", [{"key": bytes(32)}, {"key": KEY[:31]}, {"key": b""}, {"context": b"there"}])
def test_another_key_or_context_derives_nothing(given: dict[str, bytes]) -> None:
    """What is sealed says which key and context it was sealed under."""
    sealed = seal_chunked(key=KEY, context=CONTEXT, message=b"value")
    with pytest.raises(SealBroken):
        MessageKey(**{"key": KEY, "context": CONTEXT, **given}, sealed=sealed)


def test_a_message_key_opens_no_other_message() -> None:
    """Not even one of the same key and context."""
    sealed, other = (seal_chunked(key=KEY, context=CONTEXT, message=b"value") for _ in range(2))
    with pytest.raises(SealBroken):
        MessageKey(key=KEY, context=CONTEXT, sealed=sealed).open(other)


@pytest.mark.parametrize("value", [b"v", b"v" * 4093, b"v" * 65_536], ids=len)
async def test_a_version_opens_again_to_the_same(open_house: Any, value: bytes) -> None:
    """Once, twice and ever after, for a short value, for one of two chunks and for the longest."""
    async with open_house() as house:
        record = await house.put(value)
        opener = house.vault.opener("dk-1", "default")
        assert {opener.reveal(record) for _ in range(4)} == {value}


@pytest.mark.parametrize(
    "moved", [{"token": "github/other"}, {"version": 2}, {"fmt": 2}], ids=lambda moved: next(iter(moved))
)
async def test_what_was_opened_before_opens_in_its_place_only(open_house: Any, moved: dict[str, Any]) -> None:
    """The same sealed bytes in another row are broken, however often they were opened in their own."""
    async with open_house() as house:
        record = await house.put(b"value")
        opener = house.vault.opener("dk-1", "default")
        for _ in range(3):
            opener.reveal(record)
        with pytest.raises(SealBroken):
            opener.reveal(msgspec.structs.replace(record, **moved))


async def test_what_was_derived_goes_with_its_data_key(open_house: Any) -> None:
    """Once the data key is wiped, nothing that was derived from it is left, and nothing opens."""
    async with open_house() as house:
        record = await house.put(b"value")
        opener = house.vault.opener("dk-1", "default")
        for _ in range(3):
            opener.reveal(record)
        (held,) = house.vault._cache._held.all()
        assert list(held.messages) == [record.sealed]
        house.vault.flush()
        assert held.messages == {}
        with pytest.raises(KeyUnavailable, match="wiped"):
            opener.reveal(record)
        assert held.messages == {}


async def test_of_a_long_value_nothing_is_kept(open_house: Any) -> None:
    """Nothing is gained by its key, and thousands of long ones would fill the memory with what is sealed."""
    async with open_house() as house:
        record = await house.put(b"v" * 65_536)
        for _ in range(3):
            house.vault.opener("dk-1", "default").reveal(record)
        assert house.vault._cache._held.all()[0].messages == {}


async def test_so_many_are_remembered_and_no_more(open_house: Any) -> None:
    """Beyond the bound the first one goes, whichever data key it is under."""
    async with open_house() as house:
        records = [await house.put(b"value", version=number) for number in (1, 2, 3)]
        house.vault.opener("dk-1", "default").reveal(records[0])
        held: HeldKey = house.vault._cache._held.all()[0]
        held.messages.clear()
        keys = MessageKeys(bound=2)
        for record in (*records, *records):
            keys.open(held, record)
        assert len(held.messages) == 2
