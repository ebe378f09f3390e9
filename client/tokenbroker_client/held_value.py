"""A token's value in this process's memory, in a place that can be overwritten.

Overwriting is best effort: the JSON parser, the TLS library and every `str` an app was given hold copies of their own
that Python cannot reach.
"""

from __future__ import annotations

from typing import NoReturn


class HeldValue:
    """Bytes that show in no repr, compare by no accident and can be wiped."""

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        self._bytes = bytearray(value)

    def reveal(self) -> bytes:
        """Return a copy; of the empty string after `wipe`."""
        return bytes(self._bytes)

    def is_same_as(self, value: bytes) -> bool:
        """Tell whether the value is exactly these bytes."""
        return self._bytes == value

    def wipe(self) -> None:
        """Overwrite the bytes in place, then drop them."""
        self._bytes[:] = bytes(len(self._bytes))
        self._bytes.clear()

    def __repr__(self) -> str:
        return "HeldValue(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token's value is not to be pickled")
