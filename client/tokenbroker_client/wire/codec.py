"""Frames to text and back. What a session does with a frame lives with the session.

`CLIENT_FRAMES` and `SERVER_FRAMES` are the decoders for those who want msgspec's own errors; the two functions below
add what the protocol asks for besides: an error that can name its request, and unknown types that a client ignores.
"""

from __future__ import annotations

from typing import Final, get_args

import msgspec

from tokenbroker_client.wire.bounds import (
    BYTES32_PATTERN,
    BYTES64_PATTERN,
    FRAME_BYTES_MAX,
    TOKEN_NAME_PATTERN,
    WORKER_NAME_PATTERN,
    RequestId,
)
from tokenbroker_client.wire.client_frames import ClientFrame
from tokenbroker_client.wire.errors import BadFrame
from tokenbroker_client.wire.server_frames import ServerFrame

ENCODER: Final = msgspec.json.Encoder()
CLIENT_FRAMES: Final[msgspec.json.Decoder[ClientFrame]] = msgspec.json.Decoder(ClientFrame)
SERVER_FRAMES: Final[msgspec.json.Decoder[ServerFrame]] = msgspec.json.Decoder(ServerFrame)

_CLIENT_TYPES: Final = frozenset(kind.__struct_config__.tag for kind in get_args(ClientFrame))
_SERVER_TYPES: Final = frozenset(kind.__struct_config__.tag for kind in get_args(ServerFrame))

_PATTERN_WORDS: Final = {
    TOKEN_NAME_PATTERN: "a token name (1 to 8 segments of [a-z0-9][a-z0-9._-]{0,62}, joined by `/`)",
    WORKER_NAME_PATTERN: "a worker name ([a-z0-9][a-z0-9._-]{0,62})",
    BYTES32_PATTERN: "32 bytes as base64url without padding",
    BYTES64_PATTERN: "64 bytes as base64url without padding",
}


class _Envelope(msgspec.Struct, frozen=True):
    """The two fields that tell what a frame is, when the rest of it is wrong."""

    type: str | None = None


class _Numbered(msgspec.Struct, frozen=True):
    id: RequestId | None = None


_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding raises: also for bytes that are not UTF-8, text that cannot become UTF-8, and deep nesting."""
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_NUMBERED: Final = msgspec.json.Decoder(_Numbered)


def encode_frame(frame: ClientFrame | ServerFrame) -> str:
    """Return the frame as JSON text. Raises BadFrame when it is longer than a frame may be."""
    data = ENCODER.encode(frame)
    if len(data) > FRAME_BYTES_MAX:
        raise BadFrame(f"a frame of {len(data)} bytes; at most {FRAME_BYTES_MAX} fit")
    return data.decode("utf-8")


def decode_client_frame(data: str | bytes) -> ClientFrame:
    """Read what a client sent. Raises BadFrame."""
    try:
        return CLIENT_FRAMES.decode(data)
    except _UNREADABLE as error:
        unknown = _is_unknown(data, _CLIENT_TYPES)
        raise BadFrame(_explain(error), request_id=_request_id(data), unknown_type=unknown) from None


def decode_server_frame(data: str | bytes) -> ServerFrame | None:
    """Read what a broker sent; None for a type that this release does not know. Raises BadFrame."""
    try:
        return SERVER_FRAMES.decode(data)
    except _UNREADABLE as error:
        if _is_unknown(data, _SERVER_TYPES):
            return None
        raise BadFrame(_explain(error), request_id=_request_id(data)) from None


def _explain(error: Exception) -> str:
    """Say what is wrong in at most 256 characters: a type or a choice of the sender's is quoted, however long."""
    if isinstance(error, UnicodeError):
        return "the frame is not valid UTF-8"
    if isinstance(error, RecursionError):
        return "the frame is nested too deeply"
    text = str(error)
    for pattern, words in _PATTERN_WORDS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", words)
    return text if len(text) <= 256 else f"{text[:255]}…"


def _is_unknown(data: str | bytes, known: frozenset[str]) -> bool:
    try:
        envelope = _ENVELOPE.decode(data)
    except _UNREADABLE:
        return False
    return envelope.type is not None and envelope.type not in known


def _request_id(data: str | bytes) -> int | None:
    try:
        return _NUMBERED.decode(data).id
    except _UNREADABLE:
        return None
