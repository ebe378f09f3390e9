"""Plaintext as a type that does not leak by accident. Only `broker.vault` makes one out of a sealed value."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A plaintext with no useful repr, equality, hash, pickle or JSON; `reveal` is the only way to its bytes.

    `wipe` overwrites the copy held here; Python may have made others, so wiping is best effort.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytearray(value)

    def reveal(self) -> bytes:
        """The bytes. Call it where they leave, not before."""
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrite and empty the held bytes; `reveal` gives b"" afterwards."""
        self._value[:] = bytes(len(self._value))
        self._value.clear()

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__
    __hash__ = None  # type: ignore[assignment]  # a hash of a secret is an oracle

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are not compared; use hmac.compare_digest on what reveal() gives")

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")
