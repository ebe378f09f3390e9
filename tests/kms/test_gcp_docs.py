"""The pages about Google Cloud KMS say what the code does: their examples are read and tried."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kms.gcp import open_gcp, parse_uri

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "docs/spec/kms-gcp.md").read_text()
HOWTO = (ROOT / "docs/howto/google-cloud-kms.md").read_text()


def _block(page: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_context_travels_as_the_specification_says(gcp: Any) -> None:
    """The bytes that Google is given are those of the page, when wrapping and when unwrapping."""
    context = json.loads(_block(SPEC, "json"))
    sent: list[bytes] = []
    for method in ("Encrypt", "Decrypt"):
        gcp.damage[method] = lambda request: sent.append(request.additional_authenticated_data)
    async with open_gcp(gcp.uri(gcp.key())) as kms:
        await kms.unwrap(await kms.wrap(bytes(32), context), context)
    assert sent == [bytes.fromhex(_block(SPEC, "hex"))] * 2


async def test_contexts_travel_as_the_vectors_say(gcp: Any) -> None:
    """Published vectors never change: under other bytes, no wrap of yesterday opens."""
    sent: list[bytes] = []
    gcp.damage["Encrypt"] = lambda request: sent.append(request.additional_authenticated_data)
    vectors = json.loads((ROOT / "tests/vectors/kms_gcp.json").read_text())["contexts"]
    async with open_gcp(gcp.uri(gcp.key())) as kms:
        for vector in vectors:
            await kms.wrap(bytes(32), vector["context"])
    assert [aad.hex() for aad in sent] == [vector["additional_authenticated_data"] for vector in vectors]


def test_the_key_of_the_how_to_is_one() -> None:
    """Its configuration names a key that the adapter takes, once the project has a name."""
    (uri,) = tomllib.loads(_block(HOWTO, "toml"))["kms"]["keys"]
    assert parse_uri(uri.replace("PROJECT", "my-project")).name.endswith("/cryptoKeys/data-keys")


@pytest.mark.parametrize(
    "words",
    [
        "name the key and not one of its versions",
        "Google knows it by another name",
        "cannot wrap",
        "Google cannot encrypt with it",
        "no usable Google credentials",
        "Google refuses the login",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "NOT_FOUND",
        "cannot open this blob",
        "does not answer now",
        "no answer within",
        "not from a trusted CA",
        "changed on its way",
        "did not compare the checksums",
        "is no message",
        "in the name of another key",
    ],
)
def test_the_messages_in_the_how_to_exist(words: str) -> None:
    """What the table of refusals quotes is in a message of the code."""
    sources = [(ROOT / name).read_text() for name in ("kms/gcp.py", "kms/errors.py")]
    assert words in HOWTO
    assert any(words in source for source in sources)
