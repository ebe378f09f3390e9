"""The laws of rotators and issuers, as tests that any adapter can run; public, for adapters elsewhere too.

To enrol one, subclass in a test module and give it a world: a fresh target upstream, and how to look at it. Needs
pytest and pytest-asyncio (auto mode), and nothing that serves imports it:

    class TestMyRotator(RotatorLaws):
        name = "mine"
        @pytest.fixture
        async def world(self): ...          # a `RotatorWorld` with a value in use
        @pytest.fixture
        async def first_world(self): ...    # one without, as before the first rotation

A law that is broken raises LawBroken, which says what happened. Issuers have one fixture, `world`.
"""

from __future__ import annotations

from broker.upstream.conformance.issuing import IssuerLaws
from broker.upstream.conformance.rotating import RotatorLaws
from broker.upstream.conformance.verdict import LawBroken
from broker.upstream.conformance.world import BadTerms, IssuerWorld, RotatorWorld

__all__ = ["BadTerms", "IssuerLaws", "IssuerWorld", "LawBroken", "RotatorLaws", "RotatorWorld"]
