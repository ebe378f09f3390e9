"""Each law of rotators catches a rotator that breaks it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broker.upstream.conformance import LawBroken, RotatorLaws


def _beside(name: str) -> ModuleType:
    """A module of this folder; tests are not a package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"upstream_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAW_BREAKERS: dict[str, tuple[type[Any], ...]] = _beside("saboteurs").LAW_BREAKERS
WORLDS = _beside("test_laws_webhook")


class Laws(RotatorLaws):
    """The laws, impatient: one saboteur never answers."""

    deadline_s = 2.0


def test_every_law_has_a_saboteur() -> None:
    """No law goes without a rotator that shows it can fail."""
    assert set(LAW_BREAKERS) == {name for name in vars(RotatorLaws) if name.startswith("test_")}


@pytest.mark.parametrize(
    ("law", "breaker"), [(law, breaker) for law, breakers in LAW_BREAKERS.items() for breaker in breakers]
)
async def test_the_law_catches_its_saboteur(law: str, breaker: type[Any], webhook_receiver: ModuleType) -> None:
    """The law is broken for the saboteur, and says so with a LawBroken."""
    async with (
        WORLDS.receiver_world(webhook_receiver, first=False) as world,
        WORLDS.receiver_world(webhook_receiver, first=True) as first_world,
    ):
        for each in (world, first_world):
            each.rotator = breaker(real=each.rotator, receiver=each.receiver)
        test = getattr(Laws(), law)
        worlds = {"world": world, "first_world": first_world}
        with pytest.raises(LawBroken):
            await test(**{name: worlds[name] for name in inspect.signature(test).parameters})
