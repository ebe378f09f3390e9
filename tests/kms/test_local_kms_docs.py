"""The pages about the local KMS say what the code does: their examples are read and run."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from kms.errors import BadKey
from kms.local import State
from kms.local.document import Argon2Entry, parse
from kms.local.opened import open_document
from kms.local.passphrase import fresh_parameters
from kms.local.policy import parse_policy

DOCS = Path(__file__).parents[2] / "docs"
SPEC = DOCS / "spec" / "kms-local.md"
HOWTO = DOCS / "howto" / "local-kms.md"


def _blocks(page: Path, language: str) -> list[str]:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks, f"{page.name} has no {language} example"
    return blocks


def test_the_key_file_of_the_specification_is_one() -> None:
    """The example is a consistent file, whose keys belong together."""
    document = parse(_blocks(SPEC, "json")[0].encode())
    opened = open_document(document, passphrase=bytes)
    assert [version.state for version in opened.versions.values()] == [State.DISABLED, State.ENABLED]


def test_the_costs_in_the_specification_are_those_that_are_written() -> None:
    """The example has the parameters of fresh files."""
    example = msgspec.json.decode(_blocks(SPEC, "json")[1], type=Argon2Entry)
    assert msgspec.structs.replace(fresh_parameters(), salt=example.salt) == example


@pytest.mark.parametrize("page", [SPEC, HOWTO], ids=lambda page: page.stem)
def test_policies_in_the_pages_are_read(page: Path) -> None:
    """Each policy example is a policy."""
    policies = [block for block in _blocks(page, "toml") if "kms-local-policy" in block]
    assert policies
    for policy in policies:
        assert parse_policy(policy.encode()).keyrings == frozenset({"", "payments"})


def test_the_python_of_the_how_to_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples, one after the other, make, change and stop keys."""
    monkeypatch.chdir(tmp_path)
    for block in _blocks(HOWTO, "python"):
        exec(compile(block, HOWTO.name, "exec"), {})
    document = parse((tmp_path / "kms.key").read_bytes())
    assert [entry.state for entry in document.versions] == [State.DISABLED, State.ENABLED]
    assert parse((tmp_path / "sealed.key").read_bytes()).active == 2
    with pytest.raises(BadKey):
        exec(compile(_blocks(HOWTO, "python")[0], HOWTO.name, "exec"), {})


@pytest.mark.parametrize(
    "words",
    [
        "open to other users",
        "belongs to user",
        "needs a passphrase",
        "does not open version",
        "has the format",
        "do not belong together",
        "wrong, missing or unknown field",
        "is disabled",
        "has no policy",
        "does not allow worker",
        "the wrapped key",
    ],
)
def test_the_messages_in_the_how_to_exist(words: str) -> None:
    """What the table of refusals quotes is somewhere in the messages of the code."""
    sources = DOCS.parent / "kms"
    assert words in HOWTO.read_text()
    assert any(words in path.read_text() for path in sources.rglob("*.py"))
