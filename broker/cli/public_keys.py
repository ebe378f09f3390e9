"""Read a worker's public key as an operator has it: base64url text, or a file with that or a PEM public key."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.cli.failures import CommandFailed
from tokenbroker_client.wire import BadEncoding, b64, unb64

_BYTES_MAX = 16 * 1024


def read_public_key(text: str) -> str:
    """32 bytes as base64url without padding. CommandFailed: the text is neither that nor a file with a public key."""
    try:
        return b64(unb64(text, length=32))
    except BadEncoding:
        path = Path(text)
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX)
    except (OSError, ValueError):
        raise CommandFailed(
            f"{text[:80]!r} is neither a public key (43 characters of base64url) nor a file that can be read"
        ) from None
    return _parsed(content, path)


def _parsed(content: bytes, path: Path) -> str:
    if b"PRIVATE KEY-----" in content:
        raise CommandFailed(
            f"{path} is a private key, which stays with the worker; give the public key that keygen printed"
        )
    try:
        if b"-----BEGIN" in content:
            key = load_pem_public_key(content)
            if not isinstance(key, Ed25519PublicKey):
                raise CommandFailed(f"{path} holds a public key of another kind; workers have Ed25519 keys")
            return b64(key.public_bytes_raw())
        return b64(unb64(content.decode("ascii").strip(), length=32))
    except (BadEncoding, ValueError, UnsupportedAlgorithm):
        raise CommandFailed(f"{path} holds no Ed25519 public key, as base64url or PEM") from None
