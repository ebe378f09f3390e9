"""C2SP chunked-encryption v1 with AES-256-GCM and SHA-512 (c2sp.org/chunked-encryption), for messages held in memory.

`cryptography` ships this construction as Cobblestone-256. Which messages are sealed, and under which context, does
not live here.
"""

from __future__ import annotations

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from broker.vault.errors import SealBroken


def seal_chunked(*, key: bytes | bytearray, context: bytes, message: bytes) -> bytes:
    """Seal `message` under a fresh random salt: salt (24) ‖ commitment (32) ‖ AES-256-GCM chunks.

    key: 32 uniformly random bytes. ValueError: another size.
    """
    encryptor = Cobblestone256Encryptor(key, context)
    return encryptor.update(message) + encryptor.finalize()


def open_chunked(*, key: bytes | bytearray, context: bytes, sealed: bytes) -> bytes:
    """The message that `sealed` was made from, whole or not at all.

    SealBroken: one byte of key, context or sealed is another; sealed was cut, lengthened or reordered; the key has
    not 32 bytes. Which of these it was cannot be told apart.
    """
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        # Chunks that are genuine come out of update() before a later one proves false, so nothing is returned
        # until finalize() has seen the end.
        return decryptor.update(sealed) + decryptor.finalize()
    except (InvalidTag, ValueError):
        pass
    raise SealBroken
