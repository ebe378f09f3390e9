"""Every rotator and issuer that the project installs is held to the laws."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from broker.upstream.catalog import ISSUERS, ROTATORS, names
from broker.upstream.conformance import IssuerLaws, RotatorLaws

HERE = Path(__file__).parent


def enrolled(laws: type) -> list[Any]:
    """The law classes in the files test_laws_*.py of this folder."""
    classes: list[Any] = []
    for path in sorted(HERE.glob("test_laws_*.py")):
        spec = importlib.util.spec_from_file_location(f"enrolled_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = [value for value in vars(module).values() if isinstance(value, type) and value is not laws]
        classes += [value for value in found if issubclass(value, laws)]
    return classes


@pytest.mark.parametrize(("group", "laws"), [(ROTATORS, RotatorLaws), (ISSUERS, IssuerLaws)])
def test_every_adapter_is_enrolled(group: str, laws: type) -> None:
    """An adapter without laws fails here: add tests/upstream/test_laws_NAME.py with a subclass of the laws for it."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    assert set(project["entry-points"][group]) == {each.name for each in enrolled(laws)}
    assert set(project["entry-points"][group]) <= set(names(group)), "install the project again"


@pytest.mark.parametrize("laws", [RotatorLaws, IssuerLaws])
def test_no_enrolled_class_bends_a_law(laws: type) -> None:
    """A law class gives fixtures; it neither replaces nor drops a law."""
    named = [name for name in vars(laws) if name.startswith("test_")]
    for each in enrolled(laws):
        assert all(getattr(each, law) is getattr(laws, law) for law in named), each
