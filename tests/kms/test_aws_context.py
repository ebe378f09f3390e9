"""How a context is sent to AWS, against the published vectors."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.aws.context import DIGEST_NAME, sent_context

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "kms_aws_context.json").read_text())["contexts"]
CONTEXTS = st.dictionaries(st.text(st.sampled_from("ab\0 é"), max_size=3), st.text("ab\0 é", max_size=3), max_size=3)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_contexts_are_sent_as_published(vector: dict[str, Any]) -> None:
    """Each published context is sent as published."""
    assert sent_context(vector["context"]) == vector["sent"]


def test_the_digest_is_what_the_specification_says() -> None:
    """Label, names and values, each after its length, sorted by name, make the digest, without our code."""
    fields = [b"tokenbroker/kms-aws/v1", b"a", b"1", b"b", b""]
    framed = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    digest = base64.urlsafe_b64encode(hashlib.sha256(framed).digest()).decode().rstrip("=")
    assert sent_context({"b": "", "a": "1"}) == {"a": "1", DIGEST_NAME: digest}


@given(CONTEXTS, CONTEXTS)
def test_different_contexts_are_sent_differently(one: dict[str, str], two: dict[str, str]) -> None:
    """Two contexts are sent alike only if they are equal, whatever is left out."""
    assert (sent_context(one) == sent_context(two)) == (one == two)


@given(CONTEXTS)
def test_aws_takes_what_is_sent(context: dict[str, str]) -> None:
    """Nothing that is sent is empty, or holds a character that a policy could not name."""
    for text in (part for pair in sent_context(context).items() for part in pair):
        assert text
        assert text.isascii()
        assert text.isprintable()
