"""Every adapter that the catalog can open is held to the laws of the port."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

from kms.catalog import schemes
from kms.conformance import KmsLaws

HERE = Path(__file__).parent


def _enrolled() -> list[type[KmsLaws]]:
    """The law classes in the files test_laws_*.py of this folder."""
    classes: list[type[KmsLaws]] = []
    for path in sorted(HERE.glob("test_laws_*.py")):
        spec = importlib.util.spec_from_file_location(f"enrolled_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = [value for value in vars(module).values() if isinstance(value, type) and value is not KmsLaws]
        classes += [value for value in found if issubclass(value, KmsLaws) and value.__name__.startswith("Test")]
    return classes


def test_every_scheme_of_the_catalog_is_enrolled() -> None:
    """An adapter without laws fails here: add tests/kms/test_laws_NAME.py with a subclass of KmsLaws for it."""
    assert {laws.scheme for laws in _enrolled()} == set(schemes())


def test_no_enrolled_class_bends_a_law() -> None:
    """A law class gives fixtures; it neither replaces nor drops a law."""
    laws = [name for name in vars(KmsLaws) if name.startswith("test_")]
    for enrolled in _enrolled():
        assert all(getattr(enrolled, law) is getattr(KmsLaws, law) for law in laws), enrolled


def test_the_catalog_sees_what_the_project_declares() -> None:
    """The entry points of this installation are those of pyproject.toml; if not, install again."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    assert set(project["entry-points"]["tokenbroker.kms"]) <= set(schemes())
