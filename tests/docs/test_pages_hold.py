"""What pages say about the code holds: generated pages, links, error rows, bounds."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

import broker
from broker.errors import BrokerError
from kms.errors import KmsError
from storage.errors import StorageError
from tokenbroker_client.errors import BrokerError as ClientError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "client" / "README.md"])
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "s": 1, "min": 60, "h": 3600, "d": 86_400}


def leaves(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """The errors of a tree below which there are no others."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for child in below:
        yield from leaves(child)


def ours(kind: type[BaseException]) -> bool:
    return kind.__module__.partition(".")[0] in {"broker", "storage", "kms", "tokenbroker_client"}


def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings as GitHub writes them, and explicit anchors."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link between files names a file that is there, and a place in it that is there."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, place = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not place or file.suffix != ".md" or place in anchors(file), f"{page.name}: {target}"


def test_every_page_is_on_the_map() -> None:
    """A page that the map does not name is found by nobody."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    named = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in LINK.findall(index)}
    assert {page for page in (ROOT / "docs").rglob("*.md") if page.name != "README.md"} <= named


def test_generated_pages_are_current() -> None:
    """Generated pages and the example configuration are what the code makes of them."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_error_has_its_row() -> None:
    """Each error that somebody may meet is in the reference, under an anchor that messages and pages can name."""
    for found in pkgutil.walk_packages(broker.__path__, "broker."):
        if not found.name.endswith("__main__"):
            import_module(found.name)
    rows = anchors(ROOT / "docs" / "reference" / "errors.md")
    roots: list[type[BaseException]] = [BrokerError, StorageError, KmsError, ClientError]
    known = [kind for root in roots for kind in leaves(root) if ours(kind)]
    assert len(known) > 40
    assert {f"{kind.__module__}.{kind.__qualname__}" for kind in known} <= rows


def bounds() -> Iterator[tuple[str, str]]:
    """The bounds that a page gives, and where it says that they are."""
    page = (ROOT / "docs" / "explain" / "failure-modes.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \| `([\w.]+)` \|$", page, flags=re.MULTILINE):
        yield typing.cast(tuple[str, str], row)


def number_at(place: str) -> float:
    """The number that stands at a dotted place: in a module, in a class, or as the default of a field."""
    module, _, name = place.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError:
        module, _, owner = module.rpartition(".")
        kind = getattr(import_module(module), owner)
        if is_dataclass(kind):
            found = {field.name: field.default for field in fields(kind)}[name]
        elif issubclass(kind, BaseModel):
            found = kind.model_fields[name].default
        else:
            found = getattr(kind, name)
    return found.total_seconds() if isinstance(found, timedelta) else float(found)


@pytest.mark.parametrize(("bound", "place"), list(bounds()))
def test_every_bound_is_what_the_page_says(bound: str, place: str) -> None:
    """A bound on the page is the number in the code."""
    number, _, unit = bound.partition(" ")
    assert number_at(place) == float(number) * UNITS[unit]


def test_the_bounds_are_on_the_page() -> None:
    """The table of bounds has not been cut away."""
    assert len(list(bounds())) > 60
