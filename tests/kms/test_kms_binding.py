"""A bound key opens under its own context and no other (docs/spec/kms-binding.md)."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from kms.binding import BOUND_BYTES, bind, unbind
from kms.errors import Corrupt

KEY = bytes(range(32))
CONTEXT = {"keyring": "payments", "app": "tokenbroker"}


def test_a_bound_key_comes_back_under_an_equal_context() -> None:
    """The order of the names does not matter, and the size is what the specification says."""
    bound = bind(KEY, CONTEXT)
    assert len(bound) == BOUND_BYTES == 80
    assert unbind(bound, dict(reversed(CONTEXT.items()))) == KEY


@pytest.mark.parametrize(
    "other", [{}, {"keyring": "payments"}, {**CONTEXT, "app": "x"}, {"keyringpayments": "", "app": "tokenbroker"}]
)
def test_another_context_is_corrupt(other: dict[str, str]) -> None:
    """Any other name, value or boundary is refused."""
    with pytest.raises(Corrupt):
        unbind(bind(KEY, CONTEXT), other)


def test_every_byte_counts() -> None:
    """A change anywhere, or another size, is refused."""
    bound = bind(KEY, CONTEXT)
    for place in range(BOUND_BYTES):
        changed = bytearray(bound)
        changed[place] ^= 1
        with pytest.raises(Corrupt):
            unbind(bytes(changed), CONTEXT)
    for wrong in (b"", bound[:-1], bound + b"\0"):
        with pytest.raises(Corrupt):
            unbind(wrong, CONTEXT)


def test_two_bindings_differ() -> None:
    """Where the KMS wraps deterministically, the nonce keeps equal keys from looking equal."""
    assert bind(KEY, CONTEXT) != bind(KEY, CONTEXT)


def test_the_layout_is_the_published_one() -> None:
    """A second implementation, made from the specification, reads what is bound."""
    bound = bind(KEY, {"b": "2", "a": "é"})
    fields = [b"tokenbroker/kms-bound/v1", bound[:16], b"a", "é".encode(), b"b", b"2"]
    message = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    assert bound[16:48] == hmac.new(KEY, message, hashlib.sha256).digest()
    assert bound[48:] == KEY
