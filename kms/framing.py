"""One injective encoding of several fields into bytes. Which fields go into it is said where it is used."""

from __future__ import annotations


def framed(*fields: bytes) -> bytes:
    """Each field after its length as a 4-byte big-endian integer; two different lists never encode alike."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)
