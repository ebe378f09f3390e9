"""Text frames and pongs of a WebSocket server (RFC 6455 section 5.2): final, unmasked, uncompressed.

Written straight to the transport, so that sending never waits and one slow worker holds up nobody. Reading, pings and
the closing handshake stay with aiohttp.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_TABLED: Final = 512


def text_frames(payloads: Iterable[bytes]) -> bytes:
    """The frames that carry these UTF-8 payloads, one behind the other."""
    parts: list[bytes] = []
    for payload in payloads:
        length = len(payload)
        parts.append(_HEADERS[length] if length < _TABLED else _header(length))
        parts.append(payload)
    return b"".join(parts)


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


_HEADERS: Final = [_header(length) for length in range(_TABLED)]
"""Of frames as short as most answers are."""


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload, which has at most 125 bytes (section 5.5)."""
    return b"\x8a" + bytes((len(payload),)) + payload
