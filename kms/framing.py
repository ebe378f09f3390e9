"""One injective encoding of several fields into bytes, and of a context. What comes before it is each format's own."""

from __future__ import annotations

from collections.abc import Mapping


def framed(*fields: bytes) -> bytes:
    """Each field after its length as a 4-byte big-endian integer; two different lists never encode alike."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def framed_context(*fields: bytes, context: Mapping[str, str]) -> bytes:
    """These fields, then the names and values of `context`, sorted by name, framed.

    Python sorts text by code point, which is the order of its UTF-8 bytes as well.
    """
    return framed(*fields, *(part.encode() for name in sorted(context) for part in (name, context[name])))
