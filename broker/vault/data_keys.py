"""What a data key is bound to: the context its KMS sees, and a commitment that is checked after every unwrap.

Asking a KMS, and remembering its answer, do not live here.
"""

from __future__ import annotations

import hmac
from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.vault.encoding import encode
from broker.vault.envelope import FMT
from kms.port import KEY_BYTES

Purpose = Literal["value", "root"]


def kms_context(*, cluster_id: str, keyring: str, data_key: str, purpose: Purpose) -> dict[str, str]:
    """The context that a key is wrapped and unwrapped under. Every part is public and appears in the KMS's log."""
    return {
        "app": "tokenbroker",
        "cluster": cluster_id,
        "keyring": keyring,
        "data_key": data_key,
        "purpose": purpose,
        "fmt": str(FMT),
    }


def data_key_commitment(key: bytes | bytearray, *, cluster_id: str, keyring: str, data_key: str) -> bytes:
    """32 bytes that say which key this is and what it is for, and nothing else about it.

    It binds wraps made by a KMS that authenticates no context (plain RSA) as if it did.
    """
    expand = HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=encode("tokenbroker/data-key/v1", "commit"))
    return hmac.digest(expand.derive(key), encode(cluster_id, keyring, data_key), "sha256")


def is_committed(key: bytes | bytearray, commitment: bytes, *, cluster_id: str, keyring: str, data_key: str) -> bool:
    """Whether `commitment` is this key's, for this use."""
    expected = data_key_commitment(key, cluster_id=cluster_id, keyring=keyring, data_key=data_key)
    return hmac.compare_digest(expected, commitment)
