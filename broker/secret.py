"""Plaintext as a type that does not leak by accident. Only `broker.vault` makes one out of a sealed value."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A plaintext with no useful repr, equality, hash, pickle or JSON; `reveal` is the only way to its bytes.

    `wipe` lets go of them. Python cannot overwrite `bytes`, so what was freed may linger in memory until it is reused.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes. Call it where they leave, not before."""
        return self._value

    def wipe(self) -> None:
        """Let go of the bytes; `reveal` gives b"" afterwards."""
        self._value = b""

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
