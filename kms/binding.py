"""Binds a key to its context inside what is encrypted, for KMSs that authenticate no context of their own.

RSA-OAEP and AES key wrap encrypt bytes and nothing beside them. An adapter of such a KMS encrypts what `bind` makes,
and gives back what `unbind` finds in it (docs/spec/kms-binding.md). Encrypting does not live here.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

from kms.errors import Corrupt
from kms.framing import framed_context
from kms.port import KEY_BYTES

BOUND_BYTES = 80
"""Size of every bound key: nonce, tag, key. A multiple of 8, as RFC 3394 asks; fits RSA-2048 OAEP (190 bytes)."""
LABEL = b"tokenbroker/kms-bound/v1"

_NONCE_BYTES = 16
_TAG_BYTES = 32


def bind(key: bytes, context: Mapping[str, str]) -> bytes:
    """80 bytes to be encrypted: they hold `key`, open under an equal context only, and never come out twice alike."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _tag(key, nonce, context) + key


def unbind(bound: bytes, context: Mapping[str, str]) -> bytes:
    """The key that `bind` was given. Corrupt: another size, another context, or changed."""
    if len(bound) != BOUND_BYTES:
        raise Corrupt(
            f"a bound key has {BOUND_BYTES} bytes, and this has {len(bound)}: it was not wrapped by tokenbroker"
        )
    nonce, tag, key = bound[:_NONCE_BYTES], bound[_NONCE_BYTES:-KEY_BYTES], bound[-KEY_BYTES:]
    if not hmac.compare_digest(tag, _tag(key, nonce, context)):
        raise Corrupt("it was wrapped under another context, or changed")
    return key


def _tag(key: bytes, nonce: bytes, context: Mapping[str, str]) -> bytes:
    """HMAC-SHA256 under the key itself over label, nonce, and names and values sorted by name."""
    return hmac.digest(key, framed_context(LABEL, nonce, context=context), "sha256")
