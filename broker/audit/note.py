"""C2SP signed notes with Ed25519: signing, opening, and the verifier key that auditors pin (c2sp.org/signed-note).

A note is text, a blank line, and signature lines "— name base64(key id ‖ signature)". What the text of a checkpoint
says is `broker.audit.checkpoint`.
"""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.audit.errors import NoteBroken

NOTE_BYTES_MAX = 65_536
SIGNATURES_MAX = 100
_ED25519 = b"\x01"
_NAME = re.compile(r"[^\s+]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DASH = "\u2014 "


def strict_base64(text: str) -> bytes:
    """The bytes of standard, padded Base64 in its one canonical spelling. NoteBroken: anything else."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteBroken("not Base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteBroken("not canonical Base64")
    return raw


def _key_id(name: str, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def vkey_of(name: str, public_key: bytes) -> str:
    """The verifier key text: name, key id in hexadecimal, Base64 of the type byte and the public key, joined by +."""
    return f"{name}+{_key_id(name, public_key).hex()}+{base64.b64encode(_ED25519 + public_key).decode()}"


class Signer:
    """Signs notes under one name with one Ed25519 key. Has no repr that shows the seed."""

    __slots__ = ("_id", "_key", "name", "public_key", "vkey")

    def __init__(self, *, name: str, seed: bytes) -> None:
        """`seed`: 32 bytes, the RFC 8032 private key. NoteBroken: the name is empty, or holds a space or a plus."""
        if not _NAME.fullmatch(name):
            raise NoteBroken(f"{name!r} cannot name a signing key: no spaces, no plus, not empty")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.name = name
        self.public_key = self._key.public_key().public_bytes_raw()
        self._id = _key_id(name, self.public_key)
        self.vkey = vkey_of(name, self.public_key)

    def sign(self, text: str) -> str:
        """The note: `text` with this key's signature line. About 50 µs.

        NoteBroken: `text` does not end in a newline.
        """
        if not text.endswith("\n"):
            raise NoteBroken("the text of a note ends in a newline")
        signature = base64.b64encode(self._id + self._key.sign(text.encode())).decode()
        return f"{text}\n{_DASH}{self.name} {signature}\n"


class Verifier:
    """Opens notes that one Ed25519 key signed under one name."""

    __slots__ = ("_id", "_key", "name", "public_key", "vkey")

    def __init__(self, vkey: str) -> None:
        """NoteBroken: `vkey` is not a verifier key for Ed25519, or its key id is not its own."""
        name, _, rest = vkey.strip().partition("+")
        stated_id, _, encoded = rest.partition("+")
        key = strict_base64(encoded)
        if not _NAME.fullmatch(name) or len(key) != 33 or key[:1] != _ED25519:
            raise NoteBroken("not an Ed25519 verifier key (name+keyid+base64)")
        self.name = name
        self.public_key = key[1:]
        self._id = _key_id(name, self.public_key)
        if stated_id != self._id.hex():
            raise NoteBroken("the verifier key's id does not belong to its name and key; it was mistyped or altered")
        self._key = Ed25519PublicKey.from_public_bytes(self.public_key)
        self.vkey = vkey_of(name, self.public_key)

    def open(self, note: str) -> str:
        """The text that this key signed. Signatures of other keys are ignored, as the format demands.

        NoteBroken: malformed, over `NOTE_BYTES_MAX` or `SIGNATURES_MAX`, not signed by this key, or signed wrongly.
        """
        text, signatures = _split(note)
        found = False
        for name, raw in signatures:
            if name == self.name and raw[:4] == self._id:
                try:
                    self._key.verify(raw[4:], text.encode())
                except InvalidSignature:
                    raise NoteBroken(f"the signature of {self.name} does not fit the text") from None
                found = True
        if not found:
            raise NoteBroken(f"not signed by {self.name} with key id {self._id.hex()}")
        return text


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures, unverified. The last blank line separates them."""
    if len(note) > NOTE_BYTES_MAX or _CONTROL.search(note):
        raise NoteBroken(f"longer than {NOTE_BYTES_MAX} characters, or with control characters")
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or lines.pop() != "" or not 0 < len(lines) <= SIGNATURES_MAX:
        raise NoteBroken(f"not a text, a blank line and 1 to {SIGNATURES_MAX} signature lines")
    signatures = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not _NAME.fullmatch(name):
            raise NoteBroken("a malformed signature line")
        raw = strict_base64(encoded)
        if len(raw) < 5:
            raise NoteBroken("a signature line without a signature")
        signatures.append((name, raw))
    return text + "\n", signatures
