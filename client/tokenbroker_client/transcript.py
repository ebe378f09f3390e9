"""What a worker signs: length-prefixed transcripts, one per purpose.

A transcript is injective: no two tuples of fields give the same bytes, so a signature for one purpose, worker or
connection says nothing about another. Keys and signing live in `keys`.
"""

from __future__ import annotations

from typing import Final

SESSION_PURPOSE: Final = b"tokenbroker/session/v1"
ENROLMENT_PURPOSE: Final = b"tokenbroker/enroll/v1"


def length_prefixed(*fields: bytes) -> bytes:
    """Concatenate fields, each preceded by its length as a 4-byte big-endian integer."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def session_transcript(
    *,
    cluster_id: str,
    worker: str,
    public_key: bytes,
    client_nonce: bytes,
    broker_nonce: bytes,
    channel_binding: bytes,
) -> bytes:
    """Return what the `prove` frame signs (wire protocol, handshake).

    Key and nonces are 32 raw bytes. The channel binding is SHA-256 over the DER of the leaf certificate that the
    client saw, or empty on a plaintext connection. Raises ValueError for any other length.
    """
    _require_length("public_key", public_key, 32)
    _require_length("client_nonce", client_nonce, 32)
    _require_length("broker_nonce", broker_nonce, 32)
    if channel_binding:
        _require_length("channel_binding", channel_binding, 32)
    return length_prefixed(
        SESSION_PURPOSE,
        cluster_id.encode("utf-8"),
        worker.encode("utf-8"),
        public_key,
        client_nonce,
        broker_nonce,
        channel_binding,
    )


def enrolment_transcript(*, code_id: str, public_key: bytes) -> bytes:
    """Return what a worker signs to redeem an enrolment code: it holds the private key of what it registers.

    `code_id` is the part of the code before its last dot; the secret part stays out of the transcript. Raises
    ValueError when the key is not 32 bytes.
    """
    _require_length("public_key", public_key, 32)
    return length_prefixed(ENROLMENT_PURPOSE, code_id.encode("utf-8"), public_key)


def _require_length(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise ValueError(f"{name} has {len(value)} bytes; {length} belong")
