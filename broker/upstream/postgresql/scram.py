"""Passwords as PostgreSQL keeps them. The server gets the verifier alone, so that no log of its can hold a password.

RFC 5803 and PostgreSQL's `scram_build_secret`: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode

ITERATIONS = 4096
"""PostgreSQL's own default. Against guessing it is the 256 random bits of a password that count."""
_SALT_BYTES = 16


def new_password() -> str:
    """43 characters of A-Z a-z 0-9 - _, 256 random bits. They need no escape in a URL, a file or SQL."""
    return secrets.token_urlsafe(32)


def scram_verifier(password: str) -> str:
    """What ALTER ROLE … PASSWORD takes in place of a password. Each is another, as the salt is random.

    password: printable ASCII, which SASLprep (RFC 4013) leaves as it is.
    """
    assert password.isascii()
    assert password.isprintable()
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    spelt_salt, spelt_stored, spelt_server = (b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${ITERATIONS}:{spelt_salt}${spelt_stored}:{spelt_server}"
