"""Each law of issuers catches an issuer that breaks it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from broker.upstream.conformance import IssuerLaws, IssuerWorld, LawBroken


def _beside(name: str) -> ModuleType:
    """A module of this folder; tests are not a package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"upstream_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAW_BREAKERS: dict[str, tuple[type[Any], ...]] = _beside("issuer_saboteurs").LAW_BREAKERS
REAL: Any = _beside("test_laws_postgresql_user").TestPostgresqlUser


def test_every_law_has_a_saboteur() -> None:
    """No law goes without an issuer that shows it can fail."""
    assert set(LAW_BREAKERS) == {name for name in vars(IssuerLaws) if name.startswith("test_")}


class TestSaboteurs:
    """In the world of the real issuer."""

    form: ClassVar[str] = "json"
    world = REAL.world

    @pytest.mark.parametrize(
        ("law", "breaker"), [(law, breaker) for law, breakers in LAW_BREAKERS.items() for breaker in breakers]
    )
    async def test_the_law_catches_its_saboteur(self, law: str, breaker: type[Any], world: IssuerWorld) -> None:
        """The law is broken for the saboteur, and says so with a LawBroken."""
        world.issuer = breaker(real=world.issuer, world=world)
        with pytest.raises(LawBroken):
            await getattr(IssuerLaws(), law)(world)
