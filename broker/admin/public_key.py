"""Which Ed25519 public keys may identify a worker. Verifying signatures with them is done by those who hold them.

A key of small order makes one signature valid for many messages, so it proves nothing; a key with two encodings
would be two identities. Both are refused here, once, at registration (RFC 8032 section 5.1.3; the list of points is
derived below and agrees with C2SP/CCTV ed25519 and libsodium's `ge25519_has_small_order`).
"""

from __future__ import annotations

import hashlib
from typing import Final

from broker.admin.errors import KeyRefused

PUBLIC_KEY_BYTES: Final = 32

_P: Final = 2**255 - 19
_D: Final = 0x52036CEE2B6FFE738CC740797779E89800700A4D4141D8AB75EB4DCA135978A3
_Y_OF_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8})
"""The y of all eight points whose order divides 8: order 4 (0), 1 (1), 2 (-1), and the four of order 8."""


def check_public_key(raw: bytes) -> bytes:
    """Accept 32 bytes that are the one encoding of a point of large order.

    KeyRefused: another length, y not below the field's prime, no such point, or a point of small order.
    """
    if len(raw) != PUBLIC_KEY_BYTES:
        raise KeyRefused(f"public key: it has {len(raw)} bytes, an Ed25519 key has 32; send the raw public key")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P:
        raise KeyRefused("public key: this is not the canonical encoding of a point; make another key pair")
    if y in SMALL_ORDER_Y:
        raise KeyRefused("public key: it is a point of small order, which anybody can sign for; make another key pair")
    if not _is_on_curve(y):
        raise KeyRefused("public key: there is no such point on the curve; send the raw Ed25519 public key")
    return raw


def key_sha256(raw: bytes) -> str:
    """The name of a key in the audit log and the API: SHA-256 of its 32 bytes, in lower-case hex."""
    return hashlib.sha256(raw).hexdigest()


def _is_on_curve(y: int) -> bool:
    # x² = (y² - 1) / (d y² + 1) has a root: Euler's criterion on the product, as the quotient is a square when it is.
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    return pow(u * v, (_P - 1) // 2, _P) == 1
