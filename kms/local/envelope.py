"""The wrapped key of the local KMS: one HPKE message, bound to key, version and context.

Layout (docs/spec/kms-local.md, "Wrapped key"): format byte 0x01, version as 4 bytes big-endian, HPKE enc (32 bytes),
ciphertext and tag (48 bytes). Which version wraps, and who may unwrap, is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from kms.errors import Corrupt
from kms.framing import framed_context
from kms.hpke_wrap import MESSAGE_BYTES, decrypt_key, encrypt_key

BLOB_FORMAT = 1
"""First byte of every blob; another layout takes another number."""
BLOB_BYTES = 5 + MESSAGE_BYTES
"""Size of every blob: header, message."""
INFO_LABEL = b"tokenbroker/kms-local/v1"
"""First field of the HPKE `info`."""


def wrap_key(
    key: bytes, *, public_key: X25519PublicKey, key_id: str, version: int, context: Mapping[str, str]
) -> bytes:
    """The blob that only the private key of this version opens, under an equal context. key: 32 bytes."""
    message = encrypt_key(key, public_key=public_key, info=info(key_id=key_id, version=version, context=context))
    return bytes([BLOB_FORMAT]) + version.to_bytes(4, "big") + message


def unwrap_key(
    blob: bytes, *, private_key: X25519PrivateKey, key_id: str, version: int, context: Mapping[str, str]
) -> bytes:
    """The 32 bytes in `blob`, which names `version`. Corrupt: changed, another key's, or another context."""
    if version_of(blob) != version:
        raise Corrupt
    bound = info(key_id=key_id, version=version, context=context)
    return decrypt_key(blob[5:], private_key=private_key, info=bound)


def version_of(blob: bytes) -> int:
    """The key version that `blob` names; not authenticated before the blob has been opened. Raises Corrupt."""
    if len(blob) != BLOB_BYTES:
        raise Corrupt(f"a key wrapped by a local KMS has {BLOB_BYTES} bytes, and this has {len(blob)}")
    if blob[0] != BLOB_FORMAT:
        raise Corrupt(f"the wrapped key has format {blob[0]}, and only {BLOB_FORMAT} is known")
    return int.from_bytes(blob[1:5], "big")


def info(*, key_id: str, version: int, context: Mapping[str, str]) -> bytes:
    """The HPKE `info`: label, key id, version, then the context."""
    return framed_context(INFO_LABEL, key_id.encode(), str(version).encode(), context=context)
