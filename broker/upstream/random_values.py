"""The rotator `random`: values made by a rule, for secrets that nobody upstream has to be told of.

A value is `length` characters of an alphabet, or `words` of five letters each, as proquints spell 16 bits
(D. Wilkerson, "A Proposal for Proquints", 2009): easy to say and to type.
"""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal

from broker.secret import Secret
from broker.upstream.errors import BadSettings
from broker.upstream.port import Made, Rotation, Site
from broker.upstream.terms import Terms, read_terms, require_credentials

LENGTH: Final = 40
LENGTH_MAX: Final = 4096
WORDS_MAX: Final = 256
BITS_MIN: Final = 64
"""The least that a value may be worth: fewer can be found by trying."""

_ALPHABETS: Final[Mapping[str, str]] = {
    "alphanumeric": string.ascii_letters + string.digits,
    "letters": string.ascii_letters,
    "lower": string.ascii_lowercase + string.digits,
    "digits": string.digits,
    "hex": "0123456789abcdef",
    "base64url": string.ascii_letters + string.digits + "-_",
    "printable": string.ascii_letters + string.digits + string.punctuation,
}
_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"
_WORD: Final = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
_WORD_BITS: Final = 16


class RandomTerms(Terms, frozen=True, kw_only=True):
    """What a value looks like. alphabet: one by name, or characters: those of one's own. words: those instead."""

    length: int | None = None
    alphabet: Literal["alphanumeric", "letters", "lower", "digits", "hex", "base64url", "printable"] | None = None
    characters: str | None = None
    words: int | None = None


class RandomRotator:
    """Makes values, and has nothing to set, try or forget anywhere."""

    offline: Literal[True] = True

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """Refuse what contradicts itself, or gives values that can be guessed."""
        require_credentials(credentials)
        _maker(read_terms(RandomTerms, settings))

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """Another value, each time it is asked."""
        make = _maker(read_terms(RandomTerms, rotation.settings))
        return Made(value=Secret(make.one().encode()), content_type="text/plain")

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """Nobody has to be told."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """Nobody can be asked."""

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """Nobody knows the former value."""

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """Nobody knows the new value."""


class _Maker:
    """choices: what each place of a value is drawn from. joint: stands between groups of `group` places."""

    def __init__(self, choices: tuple[str, ...], *, group: int = 0, joint: str = "") -> None:
        self._choices = choices
        self._group = group or len(choices)
        self._joint = joint

    @property
    def bits(self) -> float:
        """How much there is to guess."""
        return sum(math.log2(len(choice)) for choice in self._choices)

    def one(self) -> str:
        """One value."""
        drawn = [secrets.choice(choice) for choice in self._choices]
        groups = (drawn[at : at + self._group] for at in range(0, len(drawn), self._group))
        return self._joint.join("".join(group) for group in groups)


def _maker(terms: RandomTerms) -> _Maker:
    """What makes values by these terms. BadSettings: they contradict each other, or a bound."""
    if terms.words is not None:
        if terms.length is not None or terms.alphabet is not None or terms.characters is not None:
            raise BadSettings("words: with it, take out length, alphabet and characters")
        _bounded("words", terms.words, WORDS_MAX)
        maker = _Maker(_WORD * terms.words, group=len(_WORD), joint="-")
    else:
        length = LENGTH if terms.length is None else terms.length
        _bounded("length", length, LENGTH_MAX)
        maker = _Maker((_alphabet(terms),) * length)
    if maker.bits < BITS_MIN:
        raise BadSettings(
            f"the values would be worth {maker.bits:.0f} bits, and {BITS_MIN} are the least; make them longer"
        )
    return maker


def _alphabet(terms: RandomTerms) -> str:
    if terms.characters is None:
        return _ALPHABETS[terms.alphabet or "alphanumeric"]
    if terms.alphabet is not None:
        raise BadSettings("characters: with them, take out alphabet")
    characters = "".join(dict.fromkeys(terms.characters))
    if len(characters) < 2 or not characters.isascii() or not characters.isprintable():
        raise BadSettings("characters: name two or more printable ASCII characters")
    return characters


def _bounded(name: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise BadSettings(f"{name}: {number} is not 1 to {most}")


@asynccontextmanager
async def open_random(site: Site) -> AsyncIterator[RandomRotator]:
    """The rotator; it needs nothing."""
    yield RandomRotator()
