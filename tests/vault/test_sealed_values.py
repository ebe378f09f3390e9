"""A sealed value opens to what was sealed, as what it was sealed for, and not otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BadRequest
from broker.vault.chunked import seal_chunked
from broker.vault.envelope import (
    FMT,
    SEALED_BYTES_MAX,
    VALUE_BYTES_MAX,
    ValueContexts,
    open_value,
    seal_value,
    value_context,
)
from broker.vault.errors import SealBroken

KEY = bytes(range(32))
CONTEXT = b"a context"
PARTS: dict[str, Any] = {
    "cluster_id": "c" * 52,
    "keyring": "default",
    "token": "github/ci",
    "version": 3,
    "data_key": "dk-1",
    "fmt": 1,
}


@given(st.binary(min_size=1, max_size=5000))
def test_a_value_opens_to_the_same_bytes(value: bytes) -> None:
    """Any bytes at all come back, trailing zeros included."""
    sealed = seal_value(key=KEY, context=CONTEXT, value=value)
    assert open_value(fmt=FMT, key=KEY, context=CONTEXT, sealed=sealed) == value


@pytest.mark.parametrize("size", [1, 252, 253, 1020, 1021, 4092, 4093, 16_380, 16_381, VALUE_BYTES_MAX])
def test_sizes_around_every_bucket_open(size: int) -> None:
    """The shortest, the longest, and both sides of each bucket's edge."""
    value = b"\x00" * size
    sealed = seal_value(key=KEY, context=CONTEXT, value=value)
    assert open_value(fmt=FMT, key=KEY, context=CONTEXT, sealed=sealed) == value


@pytest.mark.parametrize("size", [0, VALUE_BYTES_MAX + 1])
def test_sizes_out_of_bounds_are_refused(size: int) -> None:
    """Empty values and those over 64 KiB are a bad request, and the message names the limit."""
    with pytest.raises(BadRequest, match="65536"):
        seal_value(key=KEY, context=CONTEXT, value=bytes(size))


def test_the_sealed_length_tells_only_the_bucket() -> None:
    """All values of up to 252 bytes, so nearly all API keys, look equally long."""
    lengths = {len(seal_value(key=KEY, context=CONTEXT, value=b"x" * size)) for size in range(1, 253)}
    assert lengths == {328}


def test_the_longest_sealed_value_is_the_documented_one() -> None:
    """Storage may rely on 65 676 bytes."""
    assert len(seal_value(key=KEY, context=CONTEXT, value=bytes(VALUE_BYTES_MAX))) == SEALED_BYTES_MAX == 65_676


def test_equal_values_never_look_equal() -> None:
    """Each sealing draws its own salt."""
    assert len({seal_value(key=KEY, context=CONTEXT, value=b"same") for _ in range(100)}) == 100


@given(st.data())
def test_any_changed_byte_keeps_it_shut(data: st.DataObject) -> None:
    """Whichever byte of a sealed value becomes whatever other, it does not open."""
    sealed = bytearray(seal_value(key=KEY, context=CONTEXT, value=b"token-value"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        open_value(fmt=FMT, key=KEY, context=CONTEXT, sealed=bytes(sealed))


@given(st.data())
def test_any_changed_length_keeps_it_shut(data: st.DataObject) -> None:
    """Cut short or lengthened by however much, it does not open."""
    sealed = seal_value(key=KEY, context=CONTEXT, value=b"token-value")
    size = data.draw(st.integers(0, 20_000).filter(lambda size: size != len(sealed)))
    with pytest.raises(SealBroken):
        open_value(fmt=FMT, key=KEY, context=CONTEXT, sealed=(sealed + bytes(20_000))[:size])


@given(part=st.sampled_from(sorted(PARTS)), number=st.integers(0, 2**63), text=st.text(max_size=20))
def test_any_changed_part_of_the_context_keeps_it_shut(part: str, number: int, text: str) -> None:
    """Moved to another token, version, keyring, data key, format or cluster, it does not open."""
    moved = PARTS | {part: number if isinstance(PARTS[part], int) else text}
    sealed = seal_value(key=KEY, context=value_context(**PARTS), value=b"token-value")
    if moved == PARTS:
        assert open_value(fmt=FMT, key=KEY, context=value_context(**moved), sealed=sealed) == b"token-value"
    else:
        with pytest.raises(SealBroken):
            open_value(fmt=FMT, key=KEY, context=value_context(**moved), sealed=sealed)


@given(st.integers(0, 255), st.integers(1, 255))
def test_another_key_keeps_it_shut(at: int, change: int) -> None:
    """A key that differs anywhere does not open it."""
    other = bytearray(KEY)
    other[at % 32] ^= change
    sealed = seal_value(key=KEY, context=CONTEXT, value=b"token-value")
    with pytest.raises(SealBroken):
        open_value(fmt=FMT, key=other, context=CONTEXT, sealed=sealed)


@pytest.mark.parametrize("fmt", [-1, 0, 2, 255])
def test_an_unknown_format_is_refused(fmt: int) -> None:
    """A row that names another format is not opened as the known one."""
    sealed = seal_value(key=KEY, context=CONTEXT, value=b"token-value")
    with pytest.raises(SealBroken, match="format"):
        open_value(fmt=fmt, key=KEY, context=CONTEXT, sealed=sealed)


@pytest.mark.parametrize(
    "padded",
    [
        pytest.param(bytes(256), id="empty value"),
        pytest.param((253).to_bytes(4, "big") + bytes(252), id="length past the end"),
        pytest.param(b"\xff\xff\xff\xff" + bytes(252), id="length far past the end"),
        pytest.param((1).to_bytes(4, "big") + b"v" + bytes(250) + b"\x01", id="padding that is not zero"),
        pytest.param((252).to_bytes(4, "big") + bytes(1020), id="a larger bucket than needed"),
    ],
)
def test_a_value_has_one_padding_only(padded: bytes) -> None:
    """What decrypts and is not padded as seal_value pads is refused."""
    sealed = seal_chunked(key=KEY, context=CONTEXT, message=padded)
    with pytest.raises(SealBroken):
        open_value(fmt=FMT, key=KEY, context=CONTEXT, sealed=sealed)


@given(token=st.text(max_size=30), version=st.integers(0, 2**63))
def test_the_prepared_context_is_the_specified_one(token: str, version: int) -> None:
    """ValueContexts is a faster way to the very bytes of value_context."""
    prepared = ValueContexts(cluster_id="c" * 52, keyring="default", data_key="dk-1").of(token, version)
    assert prepared == value_context(**(PARTS | {"token": token, "version": version}))
