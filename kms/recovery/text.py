"""The two halves of a recovery key as text: the public one for a URI, the private one for paper.

Both are Crockford's base32 (0-9 and A-Z without I, L, O, U) of 32 bytes and the first 3 bytes of a labelled SHA-256 of
them: 56 characters. The private one stands in 14 groups of four, each followed by a check character that catches
every single wrong character, every two that changed places, and a group in another's place; so a slip of the pen is
found, and its group named. docs/spec/kms-recovery.md.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from kms.errors import BadKey

PAPER_PREFIX: Final = "TBR1"
"""The first word of a private half; another encoding takes another number."""
GROUPS: Final = 14
PAPER_BYTES_MAX: Final = 1024
"""Largest text that is read as a private half: its words, with room for spaces and line ends."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS: Final = str.maketrans("OIL", "011")
_HALF_BYTES: Final = 32
_SUM_BYTES: Final = 3
_GROUP_CHARS: Final = 5
_PUBLIC_LABEL: Final = b"tokenbroker/recovery-public/v1"
_PRIVATE_LABEL: Final = b"tokenbroker/recovery-private/v1"
_FIELD: Final = 0b100101
"""x^5 + x^2 + 1, which makes five bits the field GF(32)."""


def public_text(public: bytes) -> str:
    """The public half, 32 bytes, as a URI has it: 56 characters."""
    return _encoded(public, _PUBLIC_LABEL)


def read_public(text: str) -> bytes:
    """The public half in `text`. BadKey: it has another length, a strange character, or is mistyped."""
    plain = text.upper().translate(_READ_AS)
    if len(plain) != 4 * GROUPS or not set(plain) <= set(_ALPHABET):
        raise BadKey(f"the public half of a recovery key has {4 * GROUPS} letters and digits; copy it again")
    half = _decoded(plain, _PUBLIC_LABEL)
    if half is None:
        raise BadKey("the public half of the recovery key is mistyped; copy it again from where keygen printed it")
    return half


def paper_text(private: bytes) -> str:
    """The private half, 32 bytes, as it is written on paper: the prefix and 14 groups of five characters."""
    digits = _encoded(private, _PRIVATE_LABEL)
    groups = (digits[4 * number : 4 * number + 4] for number in range(GROUPS))
    return " ".join([PAPER_PREFIX, *(group + _check(number, group) for number, group in enumerate(groups, start=1))])


def read_paper(text: str) -> bytes:
    """The private half in `text`, in upper or lower case, its groups apart by spaces, hyphens or line ends, or not.

    BadKey: it does not begin as one, has another length, or a group is mistyped; the message names the groups by
    number, and nothing of what was typed.
    """
    words = [word for word in re.split(r"[\s-]+", text.upper()) if word]
    if not words or not words[0].startswith(PAPER_PREFIX):
        raise BadKey(f"the private half of a recovery key begins with {PAPER_PREFIX}; type the whole of it")
    groups = _groups([words[0].removeprefix(PAPER_PREFIX), *words[1:]])
    wrong = [number for number, group in enumerate(groups, start=1) if not _holds(number, group)]
    if wrong:
        told = f"group {wrong[0]} is" if len(wrong) == 1 else f"the groups {', '.join(map(str, wrong))} are"
        raise BadKey(f"{told} mistyped, counted behind {PAPER_PREFIX}; compare with the paper")
    half = _decoded("".join(group[:-1] for group in groups), _PRIVATE_LABEL)
    if half is None:
        raise BadKey("several characters are mistyped, in groups that seem right; compare every group with the paper")
    return half


def _groups(words: list[str]) -> list[str]:
    typed = [word.translate(_READ_AS) for word in words if word]
    if len(typed) != GROUPS:
        # Written without gaps, or with gaps elsewhere: only the characters count then.
        together = "".join(typed)
        typed = [together[start : start + _GROUP_CHARS] for start in range(0, len(together), _GROUP_CHARS)]
    if len(typed) != GROUPS:
        raise BadKey(
            f"behind {PAPER_PREFIX} come {GROUPS} groups of {_GROUP_CHARS} characters, and there are "
            f"{sum(map(len, typed))} characters; compare with the paper"
        )
    return typed


def _holds(number: int, group: str) -> bool:
    return len(group) == _GROUP_CHARS and set(group) <= set(_ALPHABET) and _check(number, group[:-1]) == group[-1]


def _check(number: int, group: str) -> str:
    """The check character of a group: a sum over GF(32), in which the number and each character have another weight."""
    total = 0
    for symbol in (number, *(_ALPHABET.index(character) for character in group)):
        total = _doubled(total ^ symbol)
    return _ALPHABET[total]


def _doubled(symbol: int) -> int:
    """Times x in GF(32)."""
    doubled = symbol << 1
    return doubled ^ _FIELD if doubled & 0b100000 else doubled


def _encoded(half: bytes, label: bytes) -> str:
    number = int.from_bytes(half + _sum(half, label), "big")
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(4 * GROUPS)))


def _decoded(digits: str, label: bytes) -> bytes | None:
    """The half, None if its sum is another."""
    number = 0
    for character in digits:
        number = number << 5 | _ALPHABET.index(character)
    whole = number.to_bytes(_HALF_BYTES + _SUM_BYTES, "big")
    half, found = whole[:_HALF_BYTES], whole[_HALF_BYTES:]
    return half if found == _sum(half, label) else None


def _sum(half: bytes, label: bytes) -> bytes:
    return sha256(label + half).digest()[:_SUM_BYTES]
