"""The rotator `random` keeps the laws, as far as they can be asked where nobody is upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.conformance import BadTerms, RotatorLaws, RotatorWorld
from broker.upstream.port import Site


@dataclass(kw_only=True)
class NobodysWorld(RotatorWorld):
    """Nobody takes a value, or does not."""

    async def works(self, value: Secret) -> bool:
        raise AssertionError("there is nobody to ask")

    async def live(self) -> int:
        raise AssertionError("there is nobody to ask")

    def wrong(self, value: Secret) -> Secret:
        raise AssertionError("there is nobody to whom it could be wrong")


class TestRandom(RotatorLaws):
    """Values by rule."""

    name: ClassVar[str] = "random"

    @pytest.fixture
    async def world(self) -> AsyncIterator[RotatorWorld]:
        """A value is in use."""
        settings = {"length": "32", "alphabet": "hex"}
        async with open_rotator("random", Site(clock=SystemClock())) as rotator:
            yield NobodysWorld(
                rotator=rotator,
                asks=False,
                settings=settings,
                current=Secret(b"0123456789abcdef0123456789abcdef"),
                bad_terms=(
                    BadTerms(names="length", settings={"length": "0"}, credentials={}),
                    BadTerms(names="alphabet", settings={"alphabet": "runes"}, credentials={}),
                    BadTerms(names="words", settings={"words": "8", "length": "8"}, credentials={}),
                    BadTerms(names="colour", settings={"colour": "red"}, credentials={}),
                    BadTerms(names="password", settings=settings, credentials={"password": "x/y"}),
                ),
            )

    @pytest.fixture
    async def first_world(self, world: NobodysWorld) -> RotatorWorld:
        """None is, yet."""
        return NobodysWorld(rotator=world.rotator, asks=False, settings=world.settings, current=None)
