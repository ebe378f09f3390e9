"""The text of recovery keys: pinned, and every slip of the pen found in its group."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.errors import BadKey
from kms.recovery.text import paper_text, public_text, read_paper, read_public

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "kms_recovery.json").read_text())
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PRIVATE = bytes.fromhex(VECTORS["keys"][0]["private"])
PAPER: str = VECTORS["keys"][0]["paper"]
GROUPS = PAPER.split()[1:]
HALVES = st.binary(min_size=32, max_size=32)


def _by_the_specification(half: bytes, label: str) -> str:
    """The 56 characters, from the words of docs/spec/kms-recovery.md alone."""
    bits = "".join(f"{byte:08b}" for byte in half + sha256(label.encode() + half).digest()[:3])
    return "".join(ALPHABET[int(bits[start : start + 5], 2)] for start in range(0, 280, 5))


def _times(one: int, two: int) -> int:
    """Multiplication in GF(32) modulo x^5 + x^2 + 1."""
    product = 0
    for bit in range(5):
        product ^= (one << bit) if two >> bit & 1 else 0
    for bit in range(8, 4, -1):
        product ^= (0b100101 << (bit - 5)) if product >> bit & 1 else 0
    return product


@pytest.mark.parametrize("key", VECTORS["keys"], ids=lambda key: key["key_id"])
def test_pinned_texts_never_change(key: dict[str, str]) -> None:
    """Paper that was written with any release is read by this one, and says the same."""
    assert read_paper(key["paper"]).hex() == key["private"]
    assert paper_text(bytes.fromhex(key["private"])) == key["paper"]
    assert public_text(bytes.fromhex(key["public"])) == key["uri"].removeprefix("recovery:")


@given(half=HALVES)
def test_the_texts_are_as_specified(half: bytes) -> None:
    """Characters, sums and check characters are what the specification says, written again from it."""
    assert public_text(half) == _by_the_specification(half, "tokenbroker/recovery-public/v1")
    digits = _by_the_specification(half, "tokenbroker/recovery-private/v1")
    groups = paper_text(half).split()[1:]
    assert "".join(group[:4] for group in groups) == digits
    for number, group in enumerate(groups, start=1):
        c1, c2, c3, c4, check = (ALPHABET.index(character) for character in group)
        by_number = _times(number, 5)  # x^5 is x^2 + 1
        assert check == by_number ^ _times(c1, 16) ^ _times(c2, 8) ^ _times(c3, 4) ^ _times(c4, 2)


@given(half=HALVES)
def test_what_is_written_is_read(half: bytes) -> None:
    """Both texts give back the half that they were made from."""
    assert (read_paper(paper_text(half)), read_public(public_text(half))) == (half, half)


@pytest.mark.parametrize(
    "typed",
    [
        PAPER.lower(),
        PAPER.replace(" ", "-"),
        PAPER.replace(" ", ""),
        PAPER.replace(" ", "\n") + "\n",
        f"  {PAPER}  ",
        "TBR1 " + " ".join(GROUPS).replace("0", "o").replace("1", "I"),
    ],
)
def test_paper_is_read_as_people_type(typed: str) -> None:
    """Case, gaps and the letters that look like digits make no difference."""
    assert read_paper(typed) == PRIVATE


@pytest.mark.parametrize("number", range(1, 15))
def test_every_wrong_character_is_found_in_its_group(number: int) -> None:
    """Whatever one character becomes, at every place, the refusal names that group and no other, and no character."""
    group = GROUPS[number - 1]
    for place in range(5):
        for other in ALPHABET.replace(group[place], "") + "U*":
            wrong = group[:place] + other + group[place + 1 :]
            with pytest.raises(BadKey, match=f"^group {number} is mistyped") as caught:
                read_paper(" ".join(["TBR1", *GROUPS[: number - 1], wrong, *GROUPS[number:]]))
            assert wrong not in str(caught.value)


@pytest.mark.parametrize("number", range(1, 15))
def test_characters_that_changed_places_are_found(number: int) -> None:
    """Two different characters of a group, the check character included, do not change places unnoticed."""
    group = GROUPS[number - 1]
    for one in range(5):
        for two in range(one):
            turned = list(group)
            turned[one], turned[two] = turned[two], turned[one]
            if turned != list(group):
                with pytest.raises(BadKey, match=f"^group {number} is mistyped"):
                    read_paper(" ".join(["TBR1", *GROUPS[: number - 1], "".join(turned), *GROUPS[number:]]))


def test_groups_that_changed_places_are_found() -> None:
    """A line that was copied before another is refused, and both places are named."""
    with pytest.raises(BadKey, match=r"^the groups 3, 4 are mistyped"):
        read_paper(" ".join(["TBR1", *GROUPS[:2], GROUPS[3], GROUPS[2], *GROUPS[4:]]))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "begins with TBR1"),
        ("TBR2 " + " ".join(GROUPS), "begins with TBR1"),
        ("TBR1", "14 groups of 5 characters, and there are 0"),
        ("TBR1 " + " ".join(GROUPS[:-1]), "there are 65 characters"),
        (PAPER + " " + GROUPS[0], "there are 75 characters"),
        ("TBR1 " + " ".join([GROUPS[0][:4], *GROUPS[1:]]), "^group 1 is mistyped"),
        ("TBR1 " + " ".join([GROUPS[0] + "é", *GROUPS[1:]]), "^group 1 is mistyped"),
    ],
)
def test_what_is_no_private_half_is_told(typed: str, said: str) -> None:
    """Another beginning, too few or too many groups, or a group of another size."""
    with pytest.raises(BadKey, match=said):
        read_paper(typed)


@given(half=HALVES, place=st.integers(0, 55), other=st.sampled_from(ALPHABET))
def test_a_mistyped_public_half_wraps_for_nobody(half: bytes, place: int, other: str) -> None:
    """A URI with one wrong character is refused, before keys are wrapped that no paper opens."""
    text = public_text(half)
    wrong = text[:place] + other + text[place + 1 :]
    if wrong != text:
        with pytest.raises(BadKey, match="mistyped"):
            read_public(wrong)
