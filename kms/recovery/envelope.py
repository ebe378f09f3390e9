"""The wrapped key of a recovery key: one HPKE message, bound to the recovery key and the context.

Layout (docs/spec/kms-recovery.md, "Wrapped key"): format byte 0x01, key id (8 bytes), HPKE enc (32 bytes), ciphertext
and tag (48 bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from kms.errors import Corrupt
from kms.framing import framed_context
from kms.hpke_wrap import MESSAGE_BYTES, decrypt_key, encrypt_key

BLOB_FORMAT = 1
"""First byte of every blob; another layout takes another number."""
ID_BYTES = 8
BLOB_BYTES = 1 + ID_BYTES + MESSAGE_BYTES
INFO_LABEL = b"tokenbroker/kms-recovery/v1"
"""First field of the HPKE `info`."""


def key_id(public_key: X25519PublicKey) -> bytes:
    """8 bytes that tell which recovery key made a wrap, so that nobody looks for a fault where the paper is another."""
    return sha256(b"tokenbroker/recovery-id/v1" + public_key.public_bytes_raw()).digest()[:ID_BYTES]


def wrap_key(key: bytes, *, public_key: X25519PublicKey, context: Mapping[str, str]) -> bytes:
    """The blob that only the private half opens, under an equal context. key: 32 bytes."""
    name = key_id(public_key)
    return bytes([BLOB_FORMAT]) + name + encrypt_key(key, public_key=public_key, info=info(name, context))


def unwrap_key(blob: bytes, *, private_key: X25519PrivateKey, context: Mapping[str, str]) -> bytes:
    """The 32 bytes in `blob`. Corrupt: another recovery key's, changed, or another context."""
    if len(blob) != BLOB_BYTES:
        raise Corrupt(f"a key wrapped by a recovery key has {BLOB_BYTES} bytes, and this has {len(blob)}")
    if blob[0] != BLOB_FORMAT:
        raise Corrupt(f"the wrapped key has format {blob[0]}, and only {BLOB_FORMAT} is known")
    name, message = blob[1 : 1 + ID_BYTES], blob[1 + ID_BYTES :]
    if name != key_id(private_key.public_key()):
        raise Corrupt(f"it was wrapped by another recovery key, whose id is {name.hex()}")
    return decrypt_key(message, private_key=private_key, info=info(name, context))


def info(name: bytes, context: Mapping[str, str]) -> bytes:
    """The HPKE `info`: label, key id, then the context."""
    return framed_context(INFO_LABEL, name, context=context)
