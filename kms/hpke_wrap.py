"""HPKE of one key to an X25519 public key, bound to a context: what the local KMS and the recovery key share.

Which fields go before the context, and what stands around the message in a blob, is each format's own.

HPKE base mode does not authenticate the sender: whoever knows the public key can make a message that opens. The port
promises secrecy and binding, not origin; the broker MACs the rows that hold wraps.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from kms.errors import Corrupt
from kms.port import KEY_BYTES

MESSAGE_BYTES = 32 + KEY_BYTES + 16
"""Size of every message: enc, ciphertext, tag."""


def encrypt_key(key: bytes, *, public_key: X25519PublicKey, info: bytes) -> bytes:
    """The message that only the private key opens, under an equal `info` (RFC 9180, section 5.1). key: 32 bytes."""
    return _suite().encrypt(key, public_key, info)


def decrypt_key(message: bytes, *, private_key: X25519PrivateKey, info: bytes) -> bytes:
    """The 32 bytes in `message`. Corrupt: changed, another key's, or another `info`."""
    try:
        return _suite().decrypt(message, private_key, info)
    except (InvalidTag, ValueError) as error:
        raise Corrupt from error


def _suite() -> Suite:
    """RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (sections 7.1 to 7.3)."""
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
