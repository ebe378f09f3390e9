"""Which public keys may identify a worker."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.admin.errors import KeyRefused
from broker.admin.public_key import SMALL_ORDER_Y, check_public_key, key_sha256

P = 2**255 - 19
SIGN = 1 << 255


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign).to_bytes(32, "little")


def is_point(y: int) -> bool:
    """Whether x exists, by solving for it (RFC 8032 section 5.1.3) instead of by Euler's criterion."""
    d = -121665 * pow(121666, -1, P)
    square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    return square in {root * root % P, -root * root % P}


SMALL = [encoded(y, sign) for y in sorted(SMALL_ORDER_Y) for sign in (0, SIGN)]
NON_CANONICAL = [encoded(P + low, sign) for low in range(19) for sign in (0, SIGN)]


def test_fresh_keys_are_accepted() -> None:
    """Every key that is made in the ordinary way passes, unchanged."""
    for _ in range(50):
        raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        assert check_public_key(raw) == raw


@pytest.mark.parametrize("raw", SMALL, ids=bytes.hex)
def test_points_of_small_order_are_refused(raw: bytes) -> None:
    """All eight points of small order are refused, with either sign bit."""
    with pytest.raises(KeyRefused, match="small order"):
        check_public_key(raw)


@pytest.mark.parametrize("raw", NON_CANONICAL, ids=bytes.hex)
def test_second_encodings_are_refused(raw: bytes) -> None:
    """A y at or above the prime is a second name for a point, and refused."""
    with pytest.raises(KeyRefused, match="canonical"):
        check_public_key(raw)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_other_lengths_are_refused(length: int) -> None:
    """A key has 32 bytes."""
    with pytest.raises(KeyRefused, match="32"):
        check_public_key(bytes(length))


def test_what_is_no_point_is_refused() -> None:
    """A y that no point of the curve has is refused; about every second one is such."""
    points = [y for y in range(2, 60) if is_point(y)]
    assert 20 < len(points) < 40
    for y in set(range(2, 60)).difference(points):
        with pytest.raises(KeyRefused, match="no such point"):
            check_public_key(encoded(y))


def test_a_small_order_key_would_accept_a_signature_nobody_made() -> None:
    """Why the list exists: without it, the identity point verifies one forged signature for any message."""
    identity, forged = encoded(1), encoded(1) + bytes(32)
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(forged, b"anything")
    except InvalidSignature:
        pytest.fail("the library refuses small-order keys by itself; the list can go")


def test_key_names_are_hex_of_sha256() -> None:
    """A key's name is 64 hex digits that depend on every bit."""
    assert key_sha256(bytes(32)) == "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
