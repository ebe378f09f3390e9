"""The signature of a webhook call: Standard Webhooks 1.0.0, symmetric (`v1`), which has libraries in many languages.

The format is described in docs/spec/rotator-webhook.md and pinned by tests/vectors/rotator_webhook.json.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping

from broker.upstream.errors import BadSettings

PREFIX = "whsec_"
KEY_BYTES_MIN = 24
KEY_BYTES_MAX = 64


def read_key(text: str) -> bytes:
    """The key in `whsec_BASE64`, with or without the prefix. BadSettings: no base64, or not 24 to 64 bytes."""
    try:
        key = b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise BadSettings(
            f"the credential signing_key must be {PREFIX} and then base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} "
            "random bytes"
        )
    return key


def signed_headers(key: bytes, *, message: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """The headers of a call. message: the id of the call, without a dot. timestamp: Unix seconds when it is sent."""
    assert "." not in message, "ids that may hold the separator could be read in two ways"
    content = b".".join((message.encode(), str(timestamp).encode(), body))
    signature = b64encode(hmac.digest(key, content, "sha256")).decode()
    return {
        "Webhook-Id": message,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": f"v1,{signature}",
    }
