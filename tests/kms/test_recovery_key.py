"""The recovery key in daily use, where it only wraps, and in the emergency; its pinned bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kms.catalog import open_kms
from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Corrupt, Denied
from kms.local import create_key_file, open_local
from kms.port import Wrap, wraps_only
from kms.recovery.envelope import info, key_id, unwrap_key
from kms.recovery.text import paper_text

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "kms_recovery.json").read_text())
KEYS: list[dict[str, str]] = VECTORS["keys"]
PRIVATE = X25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS[0]["private"]))
PUBLIC_URI = KEYS[0]["uri"]


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """The private half in a private file."""
    path = tmp_path / "paper"
    path.touch(mode=0o600)
    path.write_text(KEYS[0]["paper"] + "\n")
    return path


async def test_without_its_private_half_it_only_wraps(paper: Path) -> None:
    """It wraps and checks out, refuses to open with a word where the private half is, and says so of itself."""
    async with open_kms(PUBLIC_URI) as kms:
        await kms.check()
        wrap = await kms.wrap(KEY, CONTEXT)
        assert wraps_only(kms)
        assert (await kms.describe()).state == "only wraps"
        with pytest.raises(Denied, match="on paper"):
            await kms.unwrap(wrap, CONTEXT)
    async with open_kms(f"{PUBLIC_URI}?private-key=file:{paper}") as kms:
        assert not wraps_only(kms)
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_what_it_generated_opens_with_the_paper(paper: Path) -> None:
    """A key that it made itself opens in the emergency as well."""
    async with open_kms(PUBLIC_URI) as kms:
        key, wrap = await kms.generate(CONTEXT)
    async with open_kms(f"{PUBLIC_URI}?private-key=file:{paper}") as kms:
        assert await kms.unwrap(wrap, CONTEXT) == key


async def test_other_adapters_are_not_taken_for_one_that_only_wraps(tmp_path: Path) -> None:
    """A Kms that says nothing of the kind opens what it wraps."""
    create_key_file(tmp_path / "kms.key")
    async with open_local(f"local:{tmp_path / 'kms.key'}") as bare, open_kms(bare.uri) as guarded:
        assert not wraps_only(bare)
        assert not wraps_only(guarded)


async def test_while_the_private_half_is_here_it_says_so(paper: Path) -> None:
    """An emergency that nobody ended is a warning at every start."""
    async with open_kms(f"{PUBLIC_URI}?private-key=file:{paper}") as kms:
        assert any("is on this machine" in warning for warning in (await kms.describe()).warnings)


async def test_another_recovery_keys_wrap_names_its_key() -> None:
    """Whoever fetched the wrong paper is told which one is meant."""
    async with open_kms(KEYS[1]["uri"]) as other:
        wrap = await other.wrap(KEY, CONTEXT)
    with pytest.raises(Corrupt, match=f"another recovery key, whose id is {KEYS[1]['key_id']}"):
        unwrap_key(wrap.blob, private_key=PRIVATE, context=CONTEXT)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("private-key=/paper", "private-key names a file"),
        ("private-key=file:", "private-key names a file"),
        ("private-key=file:/nowhere/at/all", "No such file"),
        ("private-key=", "given once, with a value"),
        ("key=file:/x", "unknown option"),
    ],
)
async def test_a_private_half_that_is_not_there_is_a_bad_key(option: str, said: str) -> None:
    """What is wrong with the option is said."""
    with pytest.raises(BadKey, match=said):
        async with open_kms(f"{PUBLIC_URI}?{option}"):
            pass


async def test_a_file_that_others_can_read_is_refused(paper: Path) -> None:
    """The private half is not taken from a file that is open to others."""
    paper.chmod(0o644)
    with pytest.raises(BadKey, match="open to other users"):
        async with open_kms(f"{PUBLIC_URI}?private-key=file:{paper}"):
            pass


async def test_the_paper_of_another_key_is_refused_and_named(paper: Path) -> None:
    """A private half that belongs to another public one says to which; nothing of the private half is shown."""
    private = bytes.fromhex(KEYS[1]["private"])
    paper.write_text(paper_text(private))
    with pytest.raises(BadKey) as caught:
        async with open_kms(f"{PUBLIC_URI}?private-key=file:{paper}"):
            pass
    assert KEYS[1]["uri"] in str(caught.value)
    assert not any(group in str(caught.value) for group in KEYS[1]["paper"].split()[1:])


@pytest.mark.parametrize(
    "uri", ["recovery:", "recovery:ABC", PUBLIC_URI[:-1] + ("0" if PUBLIC_URI[-1] != "0" else "1")]
)
async def test_a_mistyped_uri_is_refused(uri: str) -> None:
    """A public half that is not whole wraps nothing."""
    with pytest.raises(BadKey):
        async with open_kms(uri):
            pass


@pytest.mark.parametrize("vector", VECTORS["wraps"], ids=lambda vector: vector["name"])
async def test_pinned_wraps_open(paper: Path, vector: dict[str, Any]) -> None:
    """What any release wrapped opens in this one, and the bytes that bind it never change."""
    wrap = Wrap(key_version=KEYS[0]["key_id"], blob=bytes.fromhex(vector["blob"]))
    async with open_kms(f"{PUBLIC_URI}?private-key=file:{paper}") as kms:
        assert (await kms.unwrap(wrap, vector["context"])).hex() == vector["key"]
    assert info(key_id(PRIVATE.public_key()), vector["context"]).hex() == vector["info"]
