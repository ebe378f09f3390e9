"""One injective encoding for everything that is authenticated, derived from or compared as a whole.

Which parts go into which context does not live here.
"""

from __future__ import annotations

from struct import Struct

_LENGTH = Struct(">I").pack


def encode(*parts: str | bytes | int) -> bytes:
    """Join `parts` so that no other sequence of byte strings gives the same bytes.

    Each part is its length as a 4-byte big-endian integer, then its bytes: text as UTF-8, an integer as its decimal
    text. A part has at most 2**32 - 1 bytes. Parts of different types may have equal bytes ("1", 1 and b"1" do), so
    the first part is a label that fixes the meaning and the type of every later one.
    """
    encoded: list[bytes] = []
    for part in parts:
        if isinstance(part, str):
            raw = part.encode()
        elif isinstance(part, bytes):
            raw = part
        else:
            raw = b"%d" % part
        encoded.append(_LENGTH(len(raw)))
        encoded.append(raw)
    return b"".join(encoded)
