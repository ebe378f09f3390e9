"""The sealed form of a token value, fmt 1: padded to a bucket, then C2SP chunked encryption under the row's context.

Pure: no clock, no I/O, no cache. Layout and context are specified in docs/spec/envelope.md. Where keys come from does
not live here. There is no format without encryption, and none that is tried after another.
"""

from __future__ import annotations

import itertools
from struct import Struct
from typing import Final

from broker.errors import BadRequest
from broker.vault.chunked import MessageKey, open_chunked, seal_chunked
from broker.vault.encoding import encode
from broker.vault.errors import SealBroken

FMT: Final = 1
"""The one format that is written and read."""
VALUE_BYTES_MAX: Final = 65_536
"""Longest value; the shortest has 1 byte."""

_LENGTH: Final = Struct(">I")
_LENGTH_BYTES: Final = _LENGTH.size
_BUCKETS: Final = (256, 1024, 4096, 16_384, VALUE_BYTES_MAX + _LENGTH_BYTES)
_CHUNK_BYTES = 16_384
_HEADER_BYTES = 24 + 32
_TAG_BYTES = 16
_BUCKET_OF_SEALED: Final = {
    _HEADER_BYTES + bucket + _TAG_BYTES * (bucket // _CHUNK_BYTES + 1): (below, bucket)
    for below, bucket in itertools.pairwise((_LENGTH_BYTES, *_BUCKETS))
}
SEALED_BYTES_MAX: Final = max(_BUCKET_OF_SEALED)
"""Longest sealed value: 65 676 bytes."""


def value_context(*, cluster_id: str, keyring: str, token: str, version: int, data_key: str, fmt: int) -> bytes:
    """What a sealed value is bound to: it opens under an equal context only."""
    return encode("tokenbroker/value/v1", cluster_id, keyring, token, version, data_key, fmt)


class ValueContexts:
    """The contexts of all values under one data key: `of(token, version)` equals `value_context` of the same parts.

    What does not change from value to value is encoded once, which takes 1 µs off each opening.
    """

    __slots__ = ("_after", "_before")

    def __init__(self, *, cluster_id: str, keyring: str, data_key: str) -> None:
        self._before = encode("tokenbroker/value/v1", cluster_id, keyring)
        self._after = encode(data_key, FMT)

    def of(self, token: str, version: int) -> bytes:
        """The context of this version of this token, sealed as fmt 1."""
        name, number = token.encode(), b"%d" % version
        return b"".join((self._before, _LENGTH.pack(len(name)), name, _LENGTH.pack(len(number)), number, self._after))


def check_value(value: bytes) -> None:
    """Return if `value` may be sealed. BadRequest: it is empty, or longer than 65 536 bytes."""
    if not 1 <= len(value) <= VALUE_BYTES_MAX:
        raise BadRequest(
            f"a token value has 1 to {VALUE_BYTES_MAX} bytes and this one has {len(value)}; "
            "store what is larger elsewhere, and its key here"
        )


def seal_value(*, key: bytes | bytearray, context: bytes, value: bytes) -> bytes:
    """Seal `value` as fmt 1. Two calls never give the same bytes.

    The result's length tells the bucket (252, 1020, 4092, 16 380 or 65 536 bytes at most), not the value's length.
    key: 32 uniformly random bytes. BadRequest: what `check_value` raises.
    """
    check_value(value)
    needed = _LENGTH_BYTES + len(value)
    bucket = next(size for size in _BUCKETS if size >= needed)
    padded = _LENGTH.pack(len(value)) + value + bytes(bucket - needed)
    return seal_chunked(key=key, context=context, message=padded)


def open_value(*, fmt: int, key: bytes | bytearray, context: bytes, sealed: bytes) -> bytes:
    """The value that was sealed under this key and context.

    SealBroken: any byte of key, context or sealed is another than when it was sealed, or fmt is not 1.
    """
    _check_fmt(fmt)
    below, bucket = _bounds(sealed)
    return _unpadded(open_chunked(key=key, context=context, sealed=sealed), below, bucket)


class ValueKey:
    """Opens one sealed value, one that `MessageKey.fits`, as often as need be: derived and checked once."""

    __slots__ = ("_below", "_bucket", "_message")

    def __init__(self, *, fmt: int, key: bytes | bytearray, context: bytes, sealed: bytes) -> None:
        """SealBroken: as `open_value`, as far as it shows without decrypting."""
        _check_fmt(fmt)
        self._below, self._bucket = _bounds(sealed)
        self._message = MessageKey(key=key, context=context, sealed=sealed)

    def open(self, sealed: bytes) -> bytes:
        """The value that was sealed. SealBroken: `sealed` is another one than this key was derived for."""
        return _unpadded(self._message.open(sealed), self._below, self._bucket)


def _check_fmt(fmt: int) -> None:
    if fmt != FMT:
        raise SealBroken(f"a sealed value names format {fmt}, and this broker reads format {FMT}; upgrade the broker")


def _bounds(sealed: bytes) -> tuple[int, int]:
    """Where the end of a value of this sealed length lies: behind the first number, and up to the second."""
    bounds = _BUCKET_OF_SEALED.get(len(sealed))
    if bounds is None:
        raise SealBroken(f"a sealed value has {len(sealed)} bytes, a length that format {FMT} never gives")
    return bounds


def _unpadded(padded: bytes, below: int, bucket: int) -> bytes:
    end = _LENGTH_BYTES + _LENGTH.unpack_from(padded)[0]
    # Only a holder of the data key can have written what decrypted, so this guards one encoding per value, not secrecy.
    if not below < end <= bucket or padded[end:] != bytes(bucket - end):
        raise SealBroken
    return padded[_LENGTH_BYTES:end]
