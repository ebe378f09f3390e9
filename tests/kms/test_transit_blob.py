"""What goes to a transit engine beside a key, and the one form of what comes back (docs/spec/kms-transit.md)."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.errors import Corrupt
from kms.port import Wrap
from kms.transit.blob import associated_data, ciphertext_of, key_of, wrap_of

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "kms-transit.md"
CONTEXTS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)
GOOD = "vault:v3:" + b64encode(bytes(60)).decode()


def test_the_example_of_the_specification_holds() -> None:
    """The page shows what is sent."""
    example = re.findall(r"^    ([A-Za-z0-9+/=]{40,})$", SPEC.read_text(), re.MULTILINE)
    assert example == [associated_data({"keyring": "payments", "data_key": "dk-1"})]


@given(CONTEXTS, CONTEXTS)
def test_different_contexts_never_encode_alike(one: dict[str, str], two: dict[str, str]) -> None:
    """Associated data are equal if and only if contexts are."""
    assert (associated_data(one) == associated_data(two)) == (one == two)


def test_the_key_version_is_taken_from_the_blob() -> None:
    """The record names the version that the server wrapped with."""
    assert wrap_of(GOOD) == Wrap(key_version="3", blob=GOOD.encode())
    assert ciphertext_of(wrap_of(GOOD)) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vault:v3:",
        "vault:v0:QUJD",
        "vault:v03:QUJD",
        "vault:v-1:QUJD",
        "vault:v12345678901:QUJD",
        "vault:QUJD",
        "VAULT:v3:QUJD",
        "vault:v3:QUJ",
        "vault:v3:QUI",
        "vault:v3:QUJ=",
        "vault:v3:QUL=",
        "vault:v3:QUJD\n",
        "vault:v3:QU\nJD",
        "vault:v3:QUJ-",
        " vault:v3:QUJD",
        "vault:v3:QUJD:QUJD",
        "vault:v3:ÄÄÄÄ",
        "vault:v3:" + "QUJD" * 1100,
    ],
)
def test_another_form_of_blob_is_corrupt(text: str) -> None:
    """One wrap has one spelling, and what has another is refused before the server is asked."""
    with pytest.raises(Corrupt):
        wrap_of(text)
    with pytest.raises(Corrupt):
        ciphertext_of(Wrap(key_version="", blob=text.encode()))


def test_a_blob_of_another_version_than_its_record_is_corrupt() -> None:
    """Record and blob must agree."""
    with pytest.raises(Corrupt, match="another version"):
        ciphertext_of(Wrap(key_version="2", blob=GOOD.encode()))


@pytest.mark.parametrize("text", ["", "!", "QUJD", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode()])
def test_only_32_bytes_are_a_key(text: str) -> None:
    """A server that opens a blob to anything else is not believed."""
    with pytest.raises(Corrupt):
        key_of(text)
