"""Signed notes against a published vector, and everything that must not open."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.errors import NoteBroken
from broker.audit.note import NOTE_BYTES_MAX, Signer, Verifier

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "note.json").read_text())
SIGNER = Signer(name="cl-test/audit", seed=bytes(32))
VERIFIER = Verifier(SIGNER.vkey)
NOTE = SIGNER.sign("one\n\ntwo\n")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_pinned_notes(vector: dict[str, Any]) -> None:
    """Signing gives the pinned verifier key and note, and the note opens to its text."""
    signer = Signer(name=vector["name"], seed=bytes.fromhex(vector["seed"]))
    assert signer.vkey == vector["vkey"]
    assert signer.sign(vector["text"]) == vector["note"]
    assert Verifier(vector["vkey"]).open(vector["note"]) == vector["text"]


def test_text_may_hold_blank_lines() -> None:
    """The last blank line separates the signatures, so earlier ones belong to the text."""
    assert VERIFIER.open(NOTE) == "one\n\ntwo\n"


def test_unknown_signatures_are_ignored() -> None:
    """A witness may add its own signature line without harm."""
    other = Signer(name="witness", seed=bytes([1]) * 32).sign("one\n\ntwo\n").splitlines()[-1]
    assert VERIFIER.open(NOTE + other + "\n") == "one\n\ntwo\n"


@given(st.integers(0, len(NOTE) - 1), st.characters(exclude_categories=["Cs"]))
def test_a_changed_character_never_opens_to_another_text(at: int, character: str) -> None:
    """Whatever one character becomes, the note opens to what was signed or not at all."""
    changed = NOTE[:at] + character + NOTE[at + 1 :]
    try:
        text = VERIFIER.open(changed)
    except NoteBroken:
        return
    assert text == "one\n\ntwo\n"


def test_another_key_does_not_open() -> None:
    """A note that another key signed under the same name is refused."""
    forged = Signer(name="cl-test/audit", seed=bytes([9]) * 32).sign("one\n")
    with pytest.raises(NoteBroken, match="not signed by cl-test/audit"):
        VERIFIER.open(forged)


def test_a_key_under_another_name_does_not_open() -> None:
    """The name is part of the key: the same key under another name is another key."""
    with pytest.raises(NoteBroken, match="not signed"):
        VERIFIER.open(Signer(name="cl-other/audit", seed=bytes(32)).sign("one\n"))


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        "text\n\n\u2014 name\n",
        "text\n\n- name AAAAAAAA\n",
        "text\n\n\u2014 na+me AAAAAAAA\n",
        "text\n\n\u2014 name AAAA\n",
        "text\n\n\u2014 name AAAAAA=\n",
        "te\rxt\n\n" + NOTE.splitlines()[-1] + "\n",
        NOTE.removesuffix("\n"),
        "x" * NOTE_BYTES_MAX + NOTE,
        NOTE + NOTE.splitlines()[-1] * 101,
    ],
)
def test_malformed_notes_are_refused(note: str) -> None:
    """What is no signed note within the bounds is refused."""
    with pytest.raises(NoteBroken):
        VERIFIER.open(note)


def test_malleable_base64_is_refused() -> None:
    """A signature line with spare bits set in its Base64 is another spelling, and is refused."""
    line = NOTE.splitlines()[-1]
    encoded = line.split(" ")[2]
    assert encoded.endswith("=")
    last = encoded[-2]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(last) ^ 1]
    respelt = encoded[:-2] + other + "="
    assert base64.b64decode(respelt) == base64.b64decode(encoded)
    with pytest.raises(NoteBroken, match="canonical"):
        VERIFIER.open(NOTE.replace(encoded, respelt))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb"])
def test_unfit_key_names_are_refused(name: str) -> None:
    """A key name with a space or a plus, or none at all, cannot sign."""
    with pytest.raises(NoteBroken):
        Signer(name=name, seed=bytes(32))


def test_mistyped_verifier_key_is_refused() -> None:
    """A verifier key whose id is not that of its name and key is refused, as are other key types."""
    name, key_id, encoded = SIGNER.vkey.split("+", 2)
    ecdsa = base64.b64encode(b"\x02" + SIGNER.public_key).decode()
    short = base64.b64encode(b"\x01" + SIGNER.public_key[:31]).decode()
    for vkey in (
        "",
        name,
        f"{name}x+{key_id}+{encoded}",
        f"{name}+{'0' * 8}+{encoded}",
        f"{name}+{key_id}+{ecdsa}",
        f"{name}+{key_id}+{short}",
        f"{name}+{key_id}+{encoded[:-4]}",
    ):
        with pytest.raises(NoteBroken):
            Verifier(vkey)


def test_text_without_newline_is_not_signed() -> None:
    """A text that does not end its last line cannot become a note."""
    with pytest.raises(NoteBroken):
        SIGNER.sign("one")


def test_signer_shows_no_seed() -> None:
    """The repr of a signer gives nothing of its seed away."""
    assert bytes([7] * 32).hex() not in repr(Signer(name="n", seed=bytes([7]) * 32))
