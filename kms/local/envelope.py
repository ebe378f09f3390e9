"""The wrapped key of the local KMS: one HPKE message, bound to key, version and context.

Layout (docs/spec/kms-local.md, "Wrapped key"): format byte 0x01, version as 4 bytes big-endian, HPKE enc (32 bytes),
ciphertext and tag (48 bytes). Which version wraps, and who may unwrap, is not decided here.

HPKE base mode does not authenticate the sender: whoever knows the public key can make a wrap that opens. The port
promises secrecy and binding, not origin; the broker MACs the rows that hold wraps.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from kms.errors import Corrupt
from kms.framing import framed
from kms.port import KEY_BYTES

BLOB_FORMAT = 1
"""First byte of every blob; another layout takes another number."""
BLOB_BYTES = 5 + 32 + KEY_BYTES + 16
"""Size of every blob: header, enc, ciphertext, tag."""
INFO_LABEL = b"tokenbroker/kms-local/v1"
"""First field of the HPKE `info`."""


def wrap_key(
    key: bytes, *, public_key: X25519PublicKey, key_id: str, version: int, context: Mapping[str, str]
) -> bytes:
    """The blob that only the private key of this version opens, under an equal context. key: 32 bytes."""
    message = _suite().encrypt(key, public_key, info(key_id=key_id, version=version, context=context))
    return bytes([BLOB_FORMAT]) + version.to_bytes(4, "big") + message


def unwrap_key(
    blob: bytes, *, private_key: X25519PrivateKey, key_id: str, version: int, context: Mapping[str, str]
) -> bytes:
    """The 32 bytes in `blob`, which names `version`. Corrupt: changed, another key's, or another context."""
    if version_of(blob) != version:
        raise Corrupt
    try:
        return _suite().decrypt(blob[5:], private_key, info(key_id=key_id, version=version, context=context))
    except (InvalidTag, ValueError) as error:
        raise Corrupt from error


def version_of(blob: bytes) -> int:
    """The key version that `blob` names; not authenticated before the blob has been opened. Raises Corrupt."""
    if len(blob) != BLOB_BYTES:
        raise Corrupt(f"a key wrapped by a local KMS has {BLOB_BYTES} bytes, and this has {len(blob)}")
    if blob[0] != BLOB_FORMAT:
        raise Corrupt(f"the wrapped key has format {blob[0]}, and only {BLOB_FORMAT} is known")
    return int.from_bytes(blob[1:5], "big")


def info(*, key_id: str, version: int, context: Mapping[str, str]) -> bytes:
    """The HPKE `info` (RFC 9180, section 5.1): label, key id, version, then names and values sorted by name.

    Python sorts text by code point, which is the order of its UTF-8 bytes as well.
    """
    pairs = (part.encode() for name in sorted(context) for part in (name, context[name]))
    return framed(INFO_LABEL, key_id.encode(), str(version).encode(), *pairs)


def _suite() -> Suite:
    """RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (sections 7.1 to 7.3)."""
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
