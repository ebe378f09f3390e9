"""The specification says what the code does: its table of events is the allow-list, its bounds are the code's."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from broker.audit import bundles, prove
from broker.audit.encoding import ENTRY_BYTES_MAX
from broker.audit.entries import AnyEntry

SPEC = (Path(__file__).parents[2] / "docs" / "spec" / "audit.md").read_text()
WORDS: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "boolean", datetime: "instant"}


def row(kind: type[msgspec.Struct]) -> str:
    """The line of the table that this entry type asks for."""
    members = []
    for field in msgspec.structs.fields(kind)[2:]:
        default = "" if field.default is msgspec.NODEFAULT else f" = {json.dumps(field.default)}"
        members.append(f"`{field.name}` {WORDS.get(field.type, 'texts')}{default}")
    return f"| `{kind.__struct_config__.tag}` | {' · '.join(members)} |"


@pytest.mark.parametrize("kind", get_args(AnyEntry), ids=lambda kind: str(kind.__struct_config__.tag))
def test_every_event_is_specified(kind: type[msgspec.Struct]) -> None:
    """Each event has its line in the specification, with its members in order."""
    assert row(kind) in SPEC.splitlines()


def test_no_other_event_is_specified() -> None:
    """The specification names no event that the broker does not write."""
    assert sum(line.startswith("| `") for line in SPEC.splitlines()) == len(get_args(AnyEntry))


def test_names_and_bounds_are_the_code_s() -> None:
    """Format names and the bound of an entry are the same in both."""
    assert bundles.FORMAT in SPEC
    assert prove.FORMAT in SPEC
    assert f"1 to {ENTRY_BYTES_MAX // 1000} {ENTRY_BYTES_MAX % 1000} bytes" in SPEC


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        (300.0, "300.0"),
        (0.5, "0.5"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e16"),
        (1.5e300, "1.5e300"),
        (0.0001, "0.0001"),
        (1e-5, "0.00001"),
        (1e-6, "1e-6"),
        ('a"\\/\b\t\n\f\r\x00\x1f\x7f\u00e9\u2028', '"a\\"\\\\/\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\u00e9\u2028"'),
    ],
)
def test_spellings_are_as_specified(value: object, spelling: str) -> None:
    """Numbers and texts are spelt as the specification says, whatever release of the encoder is installed."""
    assert msgspec.json.encode(value).decode() == spelling
