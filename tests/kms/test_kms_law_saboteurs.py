"""Each law of the KMS port catches an adapter that breaks it."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kms.conformance import Deciding, KmsLaws, LawBroken
from kms.port import Kms


def _saboteurs() -> ModuleType:
    """The module beside this one; tests are not a package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("kms_saboteurs", Path(__file__).with_name("saboteurs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAW_BREAKERS: dict[str, tuple[type[Any], ...]] = _saboteurs().LAW_BREAKERS


class Laws(KmsLaws):
    """The laws, impatient: one saboteur never answers."""

    deadline_s = 0.2


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Real keys, before they are sabotaged."""

    kms: Kms
    same_kms: Kms
    other_kms: Kms
    deciding: Deciding

    def sabotaged(self, breaker: type[Any]) -> dict[str, Any]:
        """What the fixtures of the laws give, each in the hands of the saboteur."""
        return {
            "kms": breaker(real=self.kms, other=self.other_kms),
            "same_kms": breaker(real=self.same_kms, other=self.other_kms),
            "other_kms": breaker(real=self.other_kms, other=self.kms),
            "deciding": replace(self.deciding, kms=breaker(real=self.deciding.kms, other=self.other_kms)),
        }


@pytest.fixture
async def parts(kms: Kms, same_kms: Kms, other_kms: Kms, deciding: Deciding) -> Parts:
    """The parts that the local KMS gives to its own laws."""
    return Parts(kms=kms, same_kms=same_kms, other_kms=other_kms, deciding=deciding)


def test_every_law_has_a_saboteur() -> None:
    """No law goes without an adapter that shows it can fail."""
    assert set(LAW_BREAKERS) == {name for name in vars(KmsLaws) if name.startswith("test_")}


@pytest.mark.parametrize(
    ("law", "breaker"), [(law, breaker) for law, breakers in LAW_BREAKERS.items() for breaker in breakers]
)
async def test_the_law_catches_its_saboteur(law: str, breaker: type[Any], parts: Parts) -> None:
    """The law is broken for the saboteur, and says so with a LawBroken."""
    test = getattr(Laws(), law)
    sabotaged = parts.sabotaged(breaker)
    with pytest.raises(LawBroken):
        await test(**{name: sabotaged[name] for name in inspect.signature(test).parameters})
