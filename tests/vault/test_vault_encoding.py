"""encode() joins parts in one way only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.vault.encoding import encode

parts = st.lists(st.binary(max_size=12) | st.text(max_size=6) | st.integers(0, 2**70), max_size=5)


def as_bytes(part: str | bytes | int) -> bytes:
    if isinstance(part, bytes):
        return part
    return str(part).encode()


def decode(encoded: bytes) -> list[bytes]:
    found = []
    while encoded:
        length = int.from_bytes(encoded[:4], "big")
        found.append(encoded[4 : 4 + length])
        encoded = encoded[4 + length :]
    return found


@given(parts)
def test_every_part_can_be_read_back(some: list[str | bytes | int]) -> None:
    """From the encoding, the sequence of byte strings can be told exactly, so no two sequences share one."""
    assert decode(encode(*some)) == [as_bytes(part) for part in some]


@given(parts, parts)
def test_different_sequences_never_meet(one: list[str | bytes | int], other: list[str | bytes | int]) -> None:
    """Two sequences have equal encodings exactly when their byte strings are equal one by one."""
    assert (encode(*one) == encode(*other)) == ([as_bytes(p) for p in one] == [as_bytes(p) for p in other])


def test_moving_a_boundary_changes_the_encoding() -> None:
    """What a joined string would confuse, lengths keep apart."""
    assert len({encode("ab", "c"), encode("a", "bc"), encode("abc"), encode("abc", ""), encode("", "abc")}) == 5


def test_the_layout_is_length_then_bytes() -> None:
    """Text is UTF-8 and an integer its decimal text, each after a 4-byte big-endian length."""
    assert encode("é", b"\x00", 10) == bytes.fromhex("00000002c3a9 0000000100 000000023130")
