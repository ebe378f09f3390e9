"""Bytes in JSON: base64url without padding, and a token's value as `utf8` or `b64`.

Frames live elsewhere; nothing here knows of a session.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

import msgspec

from tokenbroker_client.wire.codes import Encoding
from tokenbroker_client.wire.errors import BadEncoding

_UTF8: Final = Encoding.UTF8
_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*")
_JSON_VALUE_BYTES_MAX: Final = 96 * 1024
"""Room for the longest value as base64url (87 382 characters), within a frame of 128 KiB."""


def b64(data: bytes) -> str:
    """Encode bytes as base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str, *, length: int | None = None) -> bytes:
    """Decode base64url without padding, strictly: each byte string has exactly one text that decodes to it.

    Raises BadEncoding for padding, for signs outside the alphabet (white space included), for an impossible length,
    for trailing bits that are not zero (RFC 4648 section 3.5), and when there are not `length` bytes.
    """
    if not _ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        raise BadEncoding("not base64url without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:  # pragma: no cover - the alphabet and the length are checked above
        raise BadEncoding("not base64url without padding") from error
    if b64(data) != text:
        raise BadEncoding("base64url with trailing bits that are not zero")
    if length is not None and len(data) != length:
        raise BadEncoding(f"{len(data)} bytes where {length} belong")
    return data


def encode_value(value: bytes) -> tuple[str, Encoding]:
    """Give a value its wire form: text where that is exact and fits a frame, else base64url.

    Text full of control characters grows sixfold in JSON, so a long one of that kind travels as base64url too.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return b64(value), Encoding.B64
    if 6 * len(value) > _JSON_VALUE_BYTES_MAX and len(msgspec.json.encode(text)) > _JSON_VALUE_BYTES_MAX:
        return b64(value), Encoding.B64
    return text, _UTF8


def decode_value(value: str, encoding: Encoding) -> bytes:
    """Return the bytes that were stored. Raises BadEncoding when the text is not what `encoding` says."""
    if encoding is Encoding.B64:
        return unb64(value)
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        # `from None`: the original exception carries the value.
        raise BadEncoding("a lone surrogate, which UTF-8 cannot hold") from None
