"""The rotator `random`: values to a rule, none of which can be guessed."""

from __future__ import annotations

import re

import pytest

from broker.upstream.errors import BadSettings
from broker.upstream.port import Rotation
from broker.upstream.random_values import RandomRotator


async def made(**settings: str) -> str:
    """One value."""
    rotation = Rotation(token="web/key", settings=settings, credentials={}, id="r1")
    one = await RandomRotator().create(rotation, None)
    assert one.content_type == "text/plain"
    return one.value.reveal().decode()


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, r"[A-Za-z0-9]{40}"),
        ({"length": "64", "alphabet": "hex"}, r"[0-9a-f]{64}"),
        ({"alphabet": "digits", "length": "24"}, r"[0-9]{24}"),
        ({"characters": "xy", "length": "100"}, r"[xy]{100}"),
        ({"words": "8"}, r"([bdfghjklmnprstvz][aiou][bdfghjklmnprstvz][aiou][bdfghjklmnprstvz]-){7}[a-z]{5}"),
    ],
)
async def test_values_follow_the_rule(settings: dict[str, str], shape: str) -> None:
    """Length, alphabet or words are as they were asked for, and each value is another one."""
    RandomRotator().check(settings, {})
    values = {await made(**settings) for _ in range(50)}
    assert len(values) == 50
    assert all(re.fullmatch(shape, value) for value in values)


async def test_every_character_comes() -> None:
    """Nothing of the alphabet is left out."""
    drawn = set("".join([await made(alphabet="hex", length="400") for _ in range(5)]))
    assert drawn == set("0123456789abcdef")


@pytest.mark.parametrize(
    "settings",
    [
        {"length": "8"},
        {"alphabet": "digits", "length": "12"},
        {"words": "3"},
        {"characters": "a"},
        {"characters": "aa"},
        {"characters": "a\n"},
        {"characters": "äö"},
        {"length": "0"},
        {"length": "9999"},
        {"words": "1000"},
        {"words": "8", "length": "40"},
        {"alphabet": "hex", "characters": "ab"},
        {"alphabet": "greek"},
        {"lengh": "40"},
        {"length": "many"},
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, str]) -> None:
    """Too little to guess, contradictions and typing mistakes are refused when the policy is set."""
    with pytest.raises(BadSettings):
        RandomRotator().check(settings, {})


def test_it_signs_in_nowhere() -> None:
    """A credential would be opened for nothing, so it is refused."""
    with pytest.raises(BadSettings):
        RandomRotator().check({}, {"admin": "db/admin"})
