"""What a field of a frame may hold: patterns, lengths and ranges, as annotated types that the decoders enforce.

The frames that use them live in `client_frames` and `server_frames`; the numbers are those of the wire protocol.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

SUBPROTOCOL: Final = "tokenbroker.v1"
"""The WebSocket subprotocol that both sides insist on."""

CONNECT_PATH: Final = "/v1/connect"
"""Where a broker upgrades to the WebSocket."""

FRAME_BYTES_MAX: Final = 128 * 1024
"""A longer frame closes the connection (1009)."""

IN_FLIGHT_MAX: Final = 256
"""Unanswered requests of one session; one more is `rate_limited`."""

LEASES_PER_FRAME_MAX: Final = 1000
"""Items in a list of leases. With ids of at most 64 characters such a list fits one frame."""

VALUE_BYTES_MAX: Final = 64 * 1024
"""A token's value, before encoding."""

DETAIL_CHARS_MAX: Final = 256
TTL_S_MAX: Final = 31 * 24 * 3600
RETRY_AFTER_S_MAX: Final = 24 * 3600
WAIT_S_MAX: Final = 300
"""Longest time that a request waits in line."""
HANDSHAKE_S: Final = 5.0
ID_MAX: Final = 2**53 - 1
"""Integers above this lose digits in JSON readers that hold numbers as doubles."""

NAME_SEGMENT: Final = r"[a-z0-9][a-z0-9._-]{0,62}"

# `(?!\n)$` and not `$` alone: in Python `$` also matches before a trailing newline.
TOKEN_NAME_PATTERN: Final = rf"^{NAME_SEGMENT}(/{NAME_SEGMENT}){{0,7}}(?!\n)$"
WORKER_NAME_PATTERN: Final = rf"^{NAME_SEGMENT}(?!\n)$"
BYTES32_PATTERN: Final = r"^[A-Za-z0-9_-]{43}(?!\n)$"
BYTES64_PATTERN: Final = r"^[A-Za-z0-9_-]{86}(?!\n)$"

TokenName = Annotated[str, Meta(pattern=TOKEN_NAME_PATTERN, max_length=511)]
WorkerName = Annotated[str, Meta(pattern=WORKER_NAME_PATTERN, max_length=63)]
LeaseId = Annotated[str, Meta(min_length=1, max_length=64)]
LeaseIdSaid = Annotated[str, Meta(max_length=256)]
"""What a client may say in a list: what is no lease id is answered as a lease that is gone, and fails nothing else."""
RequestId = Annotated[int, Meta(ge=0, le=ID_MAX)]
Version = Annotated[int, Meta(ge=1, le=ID_MAX)]
TtlAsked = Annotated[float, Meta(gt=0, le=TTL_S_MAX)]
TtlLeft = Annotated[float, Meta(ge=0, le=TTL_S_MAX)]
WaitS = Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]
Pause = Annotated[float, Meta(ge=0, le=RETRY_AFTER_S_MAX)]
HeartbeatS = Annotated[float, Meta(gt=0, le=3600)]
Detail = Annotated[str, Meta(max_length=DETAIL_CHARS_MAX)]
Label = Annotated[str, Meta(max_length=128)]
ContentType = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=1024)]
Bytes32 = Annotated[str, Meta(pattern=BYTES32_PATTERN)]
"""32 bytes as base64url without padding; `unb64` makes bytes of it and has the last word."""
Bytes64 = Annotated[str, Meta(pattern=BYTES64_PATTERN)]
"""64 bytes as base64url without padding."""
