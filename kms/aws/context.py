"""How a context is sent to AWS as encryption context (docs/spec/kms-aws.md)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256

from kms.framing import framed_context

DIGEST_NAME = "tokenbroker-context"
"""The pair that carries the digest of the whole context."""

_SENT = re.compile(r"[A-Za-z0-9 _.,:/=+@-]{1,256}", re.ASCII)


def sent_context(context: Mapping[str, str]) -> dict[str, str]:
    """The encryption context that AWS is given: the pairs that policies can match, and a digest of them all.

    AWS refuses empty values, and IAM conditions know few characters: pairs with others are left out. The digest
    (docs/spec/kms-aws.md) binds every pair, also those, and where one text ends and the next begins.
    """
    whole = sha256(framed_context(b"tokenbroker/kms-aws/v1", context=context)).digest()
    digest = urlsafe_b64encode(whole).decode().rstrip("=")
    plain = {name: value for name, value in context.items() if _SENT.fullmatch(name) and _SENT.fullmatch(value)}
    return {**plain, DIGEST_NAME: digest}
