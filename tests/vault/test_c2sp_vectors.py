"""The chunked encryption is that of C2SP, judged by the vectors that `cryptography_vectors` publishes.

The published vectors derive their keys with SHA-256. Cobblestone-256, which seals here, is the instantiation with
SHA-512. So a second implementation, written by hand from the specification, is judged by the vectors as they are; it
transposes each of them to SHA-512, chunk by chunk and with its damage; and the code path of the broker is judged by
the transposed ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.vault.chunked import MessageKey, open_chunked, seal_chunked
from broker.vault.errors import SealBroken

CHUNK = 16_384
SEALED_CHUNK = CHUNK + 16


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What one salt and context make of an input key."""

    key: bytes
    base_nonce: bytes
    commitment: bytes

    def nonce(self, number: int) -> bytes:
        return (int.from_bytes(self.base_nonce, "big") ^ number).to_bytes(12, "big")

    def seal_chunk(self, number: int, chunk: bytes) -> bytes:
        return AESGCM(self.key).encrypt(self.nonce(number), chunk, None)

    def open_chunk(self, number: int, sealed: bytes) -> bytes:
        return AESGCM(self.key).decrypt(self.nonce(number), sealed, None)


def derive(*, key: bytes, context: bytes, salt: bytes, algorithm: HashAlgorithm) -> Derived:
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + context
    out = HKDFExpand(algorithm=algorithm, length=32 + 12 + 32, info=info).derive(key)
    return Derived(key=out[:32], base_nonce=out[32:44], commitment=out[44:])


def chunks_of(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def open_by_hand(*, key: bytes, context: bytes, sealed: bytes, algorithm: HashAlgorithm) -> bytes:
    """The message. ValueError or InvalidTag if it is not genuine."""
    if len(key) != 32 or len(sealed) < 56:
        raise ValueError
    derived = derive(key=key, context=context, salt=sealed[:24], algorithm=algorithm)
    if derived.commitment != sealed[24:56]:
        raise ValueError
    chunks = chunks_of(sealed[56:], SEALED_CHUNK)
    if not chunks or not 16 <= len(chunks[-1]) < SEALED_CHUNK:
        raise ValueError
    return b"".join(derived.open_chunk(number, chunk) for number, chunk in enumerate(chunks))


def seal_by_hand(*, key: bytes, context: bytes, salt: bytes, message: bytes, algorithm: HashAlgorithm) -> bytes:
    derived = derive(key=key, context=context, salt=salt, algorithm=algorithm)
    count = len(message) // CHUNK + 1
    body = [derived.seal_chunk(number, message[number * CHUNK : (number + 1) * CHUNK]) for number in range(count)]
    return salt + derived.commitment + b"".join(body)


def transposed(vector: dict[str, Any]) -> dict[str, bytes]:
    """The vector as SHA-512 has it: what is genuine stays genuine, in its place or out of it; damage stays damage."""
    as_is = inputs(vector)
    key, context, sealed = as_is["key"], as_is["context"], as_is["sealed"]
    if "aead_key" not in vector or len(sealed) < 56:
        return as_is
    salt, commitment = sealed[:24], sealed[24:56]
    old = derive(key=key, context=context, salt=salt, algorithm=SHA256())
    new = derive(key=key, context=context, salt=salt, algorithm=SHA512())
    sealed_chunks = chunks_of(sealed[56:], SEALED_CHUNK)
    body = [
        _transposed_chunk(chunk, len(sealed_chunks), old, new, number) for number, chunk in enumerate(sealed_chunks)
    ]
    header = salt + (new.commitment if commitment == old.commitment else commitment)
    return as_is | {"sealed": header + b"".join(body)}


def _transposed_chunk(chunk: bytes, count: int, old: Derived, new: Derived, number: int) -> bytes:
    for place in (number, *range(count)):
        try:
            return new.seal_chunk(place, old.open_chunk(place, chunk))
        except InvalidTag:
            continue
    return chunk


def published() -> list[dict[str, Any]]:
    text = (files("cryptography_vectors") / "chunked-encryption" / "vectors.json").read_text()
    return [vector for vector in json.loads(text)["vectors"] if vector["aead"] == "AEAD_AES_256_GCM"]


def inputs(vector: dict[str, Any]) -> dict[str, bytes]:
    sealed = base64.b64decode(vector["ciphertext"] or "")
    if vector.get("compressed"):
        sealed = zlib.decompress(sealed)
    return {"key": bytes.fromhex(vector["key"]), "context": vector["context"].encode(), "sealed": sealed}


def named(expect: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in published() if vector["expect"] == expect]


@pytest.mark.parametrize("vector", named("success"))
def test_a_published_message_opens_by_hand(vector: dict[str, Any]) -> None:
    """The hand-written implementation opens every message that should open, to the published bytes."""
    message = open_by_hand(**inputs(vector), algorithm=SHA256())
    assert hashlib.sha256(message).hexdigest() == vector["payload_sha256"]


@pytest.mark.parametrize("vector", named("failure"))
def test_a_published_forgery_does_not_open_by_hand(vector: dict[str, Any]) -> None:
    """The hand-written implementation opens no message that must not open."""
    with pytest.raises((ValueError, InvalidTag)):
        open_by_hand(**inputs(vector), algorithm=SHA256())


@pytest.mark.parametrize("vector", named("success"))
def test_a_transposed_message_opens(vector: dict[str, Any]) -> None:
    """The broker's code path opens every message that should open, to the published bytes."""
    message = open_chunked(**transposed(vector))
    assert len(message) == vector["payload_length"]
    assert hashlib.sha256(message).hexdigest() == vector["payload_sha256"]


@pytest.mark.parametrize("vector", named("failure"))
def test_a_transposed_forgery_does_not_open(vector: dict[str, Any]) -> None:
    """The broker's code path raises SealBroken for every forgery, also where earlier chunks are genuine."""
    with pytest.raises(SealBroken):
        open_chunked(**transposed(vector))


@pytest.mark.parametrize("vector", named("success") + named("failure"))
def test_a_message_key_judges_as_the_library_does(vector: dict[str, Any]) -> None:
    """What is derived once opens every transposed message of one chunk, and none of the forgeries or longer ones."""
    given = transposed(vector)

    def judged(opened: Callable[[], bytes]) -> bytes | None:
        try:
            return opened()
        except SealBroken:
            return None

    by_library = judged(lambda: open_chunked(**given)) if MessageKey.fits(given["sealed"]) else None
    assert judged(lambda: MessageKey(**given).open(given["sealed"])) == by_library


def test_the_published_set_is_the_whole_one() -> None:
    """Nothing above passed because there was nothing to run."""
    assert (len(named("success")), len(named("failure"))) == (9, 25)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 65_540])
def test_both_implementations_read_each_other(size: int) -> None:
    """On both sides of every chunk boundary, what one seals the other opens."""
    message = bytes(index % 251 for index in range(size))
    key, context = bytes(range(32)), b"here"
    ours = seal_chunked(key=key, context=context, message=message)
    theirs = seal_by_hand(key=key, context=context, salt=bytes(24), message=message, algorithm=SHA512())
    assert open_by_hand(key=key, context=context, sealed=ours, algorithm=SHA512()) == message
    assert open_chunked(key=key, context=context, sealed=theirs) == message
