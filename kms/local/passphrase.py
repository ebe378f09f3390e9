"""Private keys under a passphrase: Argon2id, then AES-256-GCM (docs/spec/kms-local.md, "Passphrase").

Where the passphrase comes from is read here too; when it is needed is decided by `opened`.
"""

from __future__ import annotations

import os
import secrets

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from kms.errors import BadKey
from kms.framing import framed
from kms.local.document import Argon2Entry
from kms.local.uri import LocalUri
from kms.private_files import read_private

PASSPHRASE_BYTES_MAX = 1024
"""Longest passphrase."""
SEAL_LABEL = b"tokenbroker/kms-local/private-key/v1"
"""First field of the authenticated data of a sealed private key."""

_NONCE_BYTES = 12


def fresh_parameters() -> Argon2Entry:
    """The second recommendation of RFC 9106, section 4 (3 passes, 4 lanes, 64 MiB), with a random salt."""
    return Argon2Entry(salt=secrets.token_bytes(16), iterations=3, lanes=4, memory_kib=64 * 1024)


def read_passphrase(uri: LocalUri) -> bytes:
    """The passphrase that `uri` names: a private file's bytes without the last line end, or a variable's.

    BadKey: `uri` names none; the variable is not set; it is empty or too long; the file is open to others.
    OSError: the file cannot be read. Blocks on the disk.
    """
    if uri.passphrase_file is not None:
        content = read_private(uri.passphrase_file, bytes_max=PASSPHRASE_BYTES_MAX + 2)
        passphrase = content.removesuffix(b"\n").removesuffix(b"\r")
    elif uri.passphrase_env is not None:
        text = os.environ.get(uri.passphrase_env)
        if text is None:
            raise BadKey(f"the environment variable {uri.passphrase_env}, which is to hold the passphrase, is not set")
        passphrase = os.fsencode(text)
    else:
        raise BadKey("the key file needs a passphrase; add ?passphrase-file=PATH or ?passphrase-env=VAR to the key URI")
    check_passphrase(passphrase)
    return passphrase


def check_passphrase(passphrase: bytes) -> None:
    """Return if this can be a passphrase: 1 to 1024 bytes. Raises BadKey."""
    if not 1 <= len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise BadKey(f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes, and this has {len(passphrase)}")


def derive_sealing_key(passphrase: bytes, parameters: Argon2Entry) -> bytes:
    """32 bytes for `seal_private_key`. Takes about 0.2 s and 64 MiB with fresh parameters: never on the event loop.

    BadKey: the cryptography library was built without Argon2id.
    """
    try:
        return Argon2id(
            salt=parameters.salt,
            length=32,
            iterations=parameters.iterations,
            lanes=parameters.lanes,
            memory_cost=parameters.memory_kib,
        ).derive(passphrase)
    except UnsupportedAlgorithm as error:
        raise BadKey("a passphrase needs Argon2id, which this build of cryptography lacks; take its wheel") from error


def seal_private_key(private_key: bytes, *, sealing_key: bytes, key_id: str, version: int, public_key: bytes) -> bytes:
    """60 bytes: nonce, ciphertext, tag. Bound to the key id, the version and the public key."""
    # One passphrase seals at most 64 versions, so a random nonce does not come twice.
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(sealing_key).encrypt(nonce, private_key, _bound(key_id, version, public_key))


def open_private_key(sealed: bytes, *, sealing_key: bytes, key_id: str, version: int, public_key: bytes) -> bytes:
    """The 32 bytes that were sealed. BadKey: another passphrase, or the entry was changed; nobody can tell which."""
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(sealing_key).decrypt(nonce, ciphertext, _bound(key_id, version, public_key))
    except InvalidTag:
        raise BadKey(f"the passphrase does not open version {version}: it is wrong, or the file was changed") from None


def _bound(key_id: str, version: int, public_key: bytes) -> bytes:
    return framed(SEAL_LABEL, key_id.encode(), str(version).encode(), public_key)
