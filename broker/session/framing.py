"""Text frames and pongs of a WebSocket server (RFC 6455 section 5.2): final, unmasked, uncompressed.

Written straight to the transport, so that sending never waits and one slow worker holds up nobody. Reading, pings and
the closing handshake stay with aiohttp.
"""

from __future__ import annotations

_FIN_TEXT = b"\x81"
_HEADERS = [_FIN_TEXT + bytes((length,)) for length in range(126)]


def text_frame(payload: bytes) -> bytes:
    """The frame that carries this UTF-8 payload."""
    length = len(payload)
    if length < 126:
        return _HEADERS[length] + payload
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload, which has at most 125 bytes (section 5.5)."""
    return b"\x8a" + bytes((len(payload),)) + payload
