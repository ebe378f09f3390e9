"""Key files that are damaged, forged or foreign: always a BadKey, never another error, never a key shown."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kms.errors import BadKey
from kms.local import add_version, create_key_file, open_local
from kms.local.document import parse, render

Tree = dict[str, Any]


def _tree(path: Path) -> Tree:
    tree: Tree = json.loads(path.read_text())
    return tree


async def _refused(path: Path, content: bytes) -> str:
    """What the error says when the key file holds `content`."""
    path.write_bytes(content)
    with pytest.raises(BadKey) as caught:
        async with open_local(f"local:{path}"):
            pass
    return str(caught.value)


CHANGES: dict[str, Callable[[Tree], object]] = {
    "no format": lambda tree: tree.pop("format"),
    "newer format": lambda tree: tree.update(format="tokenbroker/kms-local-key/v2"),
    "format is a number": lambda tree: tree.update(format=1),
    "no key id": lambda tree: tree.pop("key_id"),
    "short key id": lambda tree: tree.update(key_id="00"),
    "key id with a line end": lambda tree: tree.update(key_id="0" * 32 + "\n"),
    "key id in capitals": lambda tree: tree.update(key_id="A" * 32),
    "unknown field": lambda tree: tree.update(more=1),
    "unknown field of a version": lambda tree: tree["versions"][0].update(more=1),
    "no active": lambda tree: tree.pop("active"),
    "active is not there": lambda tree: tree.update(active=3),
    "active is a text": lambda tree: tree.update(active="1"),
    "active is true": lambda tree: tree.update(active=True),
    "no versions": lambda tree: tree.pop("versions"),
    "empty versions": lambda tree: tree.update(versions=[]),
    "versions is no list": lambda tree: tree.update(versions={"1": tree["versions"][0]}),
    "same number twice": lambda tree: tree["versions"][1].update(version=1),
    "falling numbers": lambda tree: tree["versions"].reverse(),
    "version zero": lambda tree: tree["versions"][0].update(version=0),
    "version over four bytes": lambda tree: tree["versions"][1].update(version=2**32),
    "too many versions": lambda tree: tree.update(
        versions=[{**tree["versions"][0], "version": n} for n in range(1, 70)]
    ),
    "unknown state": lambda tree: tree["versions"][0].update(state="paused"),
    "no state": lambda tree: tree["versions"][0].pop("state"),
    "no private key": lambda tree: tree["versions"][0].pop("private_key"),
    "private key is null": lambda tree: tree["versions"][0].update(private_key=None),
    "short private key": lambda tree: tree["versions"][0].update(private_key=b64encode(bytes(31)).decode()),
    "private key is no base64": lambda tree: tree["versions"][0].update(private_key="!" * 44),
    "another private key": lambda tree: tree["versions"][0].update(private_key=tree["versions"][1]["private_key"]),
    "another public key": lambda tree: tree["versions"][0].update(public_key=tree["versions"][1]["public_key"]),
    "sealed without passphrase": lambda tree: tree["versions"][0].update(
        private_key=None, sealed_private_key=b64encode(bytes(60)).decode()
    ),
    "clear and sealed": lambda tree: tree["versions"][0].update(sealed_private_key=b64encode(bytes(60)).decode()),
    "passphrase, yet clear": lambda tree: tree.update(passphrase=ARGON2),
}
ARGON2: Tree = {
    "kdf": "argon2id",
    "salt": b64encode(bytes(16)).decode(),
    "iterations": 3,
    "lanes": 4,
    "memory_kib": 65536,
}
COSTS: list[Tree] = [
    {"kdf": "scrypt"},
    {"salt": "AAAA"},
    {"iterations": 0},
    {"iterations": 9},
    {"iterations": 2**40},
    {"lanes": 0},
    {"lanes": 9},
    {"memory_kib": 8},
    {"memory_kib": 19455},
    {"memory_kib": 262145},
    {"memory_kib": "65536"},
]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_an_inconsistent_file_is_a_bad_key(key_file: Path, change: Callable[[Tree], object]) -> None:
    """A wrong field, one too many or one too few refuses the file, and the message shows no private key."""
    add_version(key_file)
    tree = _tree(key_file)
    secrets = [entry["private_key"] for entry in tree["versions"]]
    change(tree)
    message = await _refused(key_file, json.dumps(tree).encode())
    assert not any(secret in message for secret in secrets)


@pytest.mark.parametrize("cost", COSTS)
async def test_costs_out_of_bounds_are_refused_before_they_are_paid(key_file: Path, cost: Tree) -> None:
    """A file can neither make a passphrase cheap to guess nor hold up the start."""
    tree = _tree(key_file)
    entry = tree["versions"][0]
    del entry["private_key"]
    entry["sealed_private_key"] = b64encode(bytes(60)).decode()
    tree["passphrase"] = {**ARGON2, **cost}
    message = await _refused(key_file, json.dumps(tree).encode())
    assert f"$.passphrase.{next(iter(cost))}" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"format": "\xff"}',
        b"-----BEGIN PRIVATE KEY-----\n",
        b"[" * 60_000,
        b'{"x":' + b"[" * 60_000,
        b"x" * 70_000,
    ],
    ids=lambda content: f"{len(content)} bytes, {content[:10]!r}",
)
async def test_what_is_no_key_file_is_a_bad_key(key_file: Path, content: bytes) -> None:
    """Another file at the path is refused, whatever it is."""
    await _refused(key_file, content)


async def test_a_newer_format_says_so(key_file: Path) -> None:
    """The message tells a newer file from a damaged one."""
    tree = _tree(key_file)
    tree["format"] = "tokenbroker/kms-local-key/v2"
    assert "has the format 'tokenbroker/kms-local-key/v2'" in await _refused(key_file, json.dumps(tree).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=8), child, max_size=3),
    max_leaves=8,
)
FIELDS = ["format", "key_id", "active", "versions", "passphrase"]


@given(field=st.sampled_from(FIELDS), value=JSON)
@example(field="passphrase", value=None)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: object) -> None:
    """Whatever JSON stands in a field, reading ends in a document or a BadKey."""
    version = {"version": 1, "state": "enabled", "public_key": ARGON2_KEY, "private_key": ARGON2_KEY}
    tree: Tree = {"format": "tokenbroker/kms-local-key/v1", "key_id": "0" * 32, "active": 1, "versions": [version]}
    _read_or_refused(json.dumps({**tree, field: value}).encode())


ARGON2_KEY = b64encode(bytes(32)).decode()


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Whatever bytes stand in the file, reading ends in a document or a BadKey."""
    _read_or_refused(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    """Cut, flip or insert a byte anywhere: the file is refused, or still says a whole document."""
    path = tmp_path / "damaged.key"
    if not path.exists():
        create_key_file(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "change", "insert"]))
    if kind == "cut":
        del content[place:]
    elif kind == "change":
        content[place] = data.draw(st.integers(0, 255))
    else:
        content.insert(place, data.draw(st.integers(0, 255)))
    _read_or_refused(bytes(content))


def test_a_document_survives_being_written(key_file: Path) -> None:
    """Rendering and parsing are inverse, and the text is indented for people."""
    document = parse(key_file.read_bytes())
    assert parse(render(document)) == document
    assert key_file.read_text().startswith('{\n  "format": "tokenbroker/kms-local-key/v1",\n')


def _read_or_refused(content: bytes) -> None:
    try:
        document = parse(content)
    except BadKey:
        return
    assert parse(render(document)) == document
