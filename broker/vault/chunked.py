"""C2SP chunked-encryption v1 with AES-256-GCM and SHA-512 (c2sp.org/chunked-encryption), for messages held in memory.

`cryptography` ships this construction as Cobblestone-256, which derives the message's key anew at each call: nine
tenths of the cost of a short message. `MessageKey` is what is derived, for messages that are opened again. Which
messages are sealed, and under which context, does not live here.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.vault.errors import SealBroken

_LABEL: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
_SALT_BYTES: Final = 24
_HEADER_BYTES: Final = _SALT_BYTES + 32
_KEY_BYTES: Final = 32
_NONCE_END: Final = _KEY_BYTES + 12
_DERIVED_BYTES: Final = _NONCE_END + 32
_CHUNK_SEALED_BYTES: Final = 16_384 + 16


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


class MessageKey:
    """The key and nonce of one message of a single chunk, derived and checked once: opens that message as often as need
    be. It opens nothing else.
    """

    __slots__ = ("_cipher", "_nonce")

    def __init__(self, *, key: bytes | bytearray, context: bytes, sealed: bytes) -> None:
        """SealBroken: what `sealed` commits to is another key or context, or the key has not 32 bytes."""
        if len(key) != _KEY_BYTES or not self.fits(sealed):
            raise SealBroken
        info = b"".join((_LABEL, sealed[:_SALT_BYTES], context))
        derived = HKDFExpand(SHA512(), _DERIVED_BYTES, info).derive(key)
        if not hmac.compare_digest(derived[_NONCE_END:], sealed[_SALT_BYTES:_HEADER_BYTES]):
            raise SealBroken
        self._cipher = AESGCM(derived[:_KEY_BYTES])
        self._nonce = derived[_KEY_BYTES:_NONCE_END]

    @staticmethod
    def fits(sealed: bytes) -> bool:
        """Whether it is a message of a single chunk, which is shorter than a full one."""
        return _HEADER_BYTES < len(sealed) < _HEADER_BYTES + _CHUNK_SEALED_BYTES

    def open(self, sealed: bytes) -> bytes:
        """The message. SealBroken: it is another one than this key was derived for, or one byte of it is another."""
        try:
            return self._cipher.decrypt(self._nonce, sealed[_HEADER_BYTES:], None)
        except InvalidTag:
            pass
        raise SealBroken
