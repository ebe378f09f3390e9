"""What goes to the server beside a key, and the form of what comes back (docs/spec/kms-transit.md).

The server is not asked here.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping

from kms.bounds import check_blob
from kms.errors import Corrupt
from kms.framing import framed_context
from kms.port import KEY_BYTES, Wrap

LABEL = b"tokenbroker/kms-transit/v1"

# Version 0 is left out: OpenBao takes it for version 1, so that a changed blob would open.
_CIPHERTEXT = re.compile(rb"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+={0,2})")


def associated_data(context: Mapping[str, str]) -> str:
    """The base64 of label, names and values, framed, sorted by name; two different contexts never encode alike."""
    return b64encode(framed_context(LABEL, context=context)).decode()


def wrap_of(ciphertext: str) -> Wrap:
    """The server's ciphertext as a wrap. Corrupt: it is not of the form that transit gives."""
    blob = ciphertext.encode(errors="replace")
    return Wrap(key_version=_version(blob), blob=blob)


def ciphertext_of(wrap: Wrap) -> str:
    """What the server is to open. Corrupt: not of transit's form, or of another key version than its record says."""
    if wrap.key_version not in ("", _version(wrap.blob)):
        raise Corrupt("the wrapped key names another version than the record that holds it")
    return wrap.blob.decode("ascii")


def key_of(plaintext: str) -> bytes:
    """The 32 bytes that the server opened. Corrupt: they are something else."""
    try:
        key = b64decode(plaintext, validate=True)
    except (binascii.Error, ValueError):
        raise Corrupt("the server opened the blob to something that is not base64") from None
    if len(key) != KEY_BYTES:
        raise Corrupt(f"the server opened the blob to something that has not {KEY_BYTES} bytes")
    return key


def _version(blob: bytes) -> str:
    check_blob(blob)
    match = _CIPHERTEXT.fullmatch(blob)
    if match is None or not _canonical(match[2]):
        raise Corrupt("the wrapped key is not of the form vault:vN:BASE64")
    return match[1].decode("ascii")


def _canonical(text: bytes) -> bool:
    """Whether `text` is the one base64 of what it says: the last character can have bits that mean nothing."""
    try:
        return b64encode(b64decode(text, validate=True)) == text
    except binascii.Error:
        return False
