"""Make and hash what is shown once: admin credentials and enrolment codes. Only SHA-256 of 256 random bits is stored.

No slow hash: the secrets are uniformly random, so there is nothing to guess faster than 2^255 tries.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from typing import Final, NamedTuple

from broker.ids import random_id
from broker.secret import Secret

ADMIN_PREFIX: Final = "tba_"
CODE_PREFIX: Final = "tbe_"
SECRET_BYTES: Final = 32

_CREDENTIAL: Final = re.compile(r"tba_[A-Za-z0-9_-]{43}")
_CODE: Final = re.compile(r"(tbe_([0-9a-z]{16,64}))\.([A-Za-z0-9_-]{43})")


class Code(NamedTuple):
    """An enrolment code taken apart. `code_id` is what a worker signs; `enrolment` is the record's id."""

    code_id: str
    enrolment: str
    secret_sha256: bytes


def mint_credential() -> Secret:
    """A fresh admin credential: `tba_` and 43 characters of base64url."""
    return Secret(f"{ADMIN_PREFIX}{_random_text()}".encode())


def credential_sha256(text: str) -> bytes | None:
    """What is stored of an admin credential; None for a text that cannot be one."""
    return _sha256(text) if _CREDENTIAL.fullmatch(text) else None


def mint_code() -> tuple[str, Secret, bytes]:
    """A fresh enrolment: its id, the code to show once (`tbe_ID.SECRET`), and what is stored of the secret."""
    enrolment, secret = random_id(), _random_text()
    return enrolment, Secret(f"{CODE_PREFIX}{enrolment}.{secret}".encode()), _sha256(secret)


def parse_code(text: str) -> Code | None:
    """Take a code apart; None for a text that cannot be one."""
    match = _CODE.fullmatch(text)
    if match is None:
        return None
    return Code(code_id=match[1], enrolment=match[2], secret_sha256=_sha256(match[3]))


def _random_text() -> str:
    return base64.urlsafe_b64encode(os.urandom(SECRET_BYTES)).rstrip(b"=").decode()


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
