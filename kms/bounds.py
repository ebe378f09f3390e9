"""The bounds of the port, checked in one place for adapters and for the guard around them.

What an adapter's own format allows beyond these bounds does not live here.
"""

from __future__ import annotations

from collections.abc import Mapping

from kms.errors import BadKey, Corrupt, KmsError
from kms.port import CONTEXT_BYTES_MAX, KEY_BYTES, WRAP_BYTES_MAX


def check_key(key: bytes) -> None:
    """Return if `key` may be wrapped: exactly 32 bytes. Raises BadKey, which names the size and never the key."""
    if not isinstance(key, bytes):
        raise BadKey(f"only bytes are wrapped, and this is {type(key).__name__}")
    if len(key) != KEY_BYTES:
        raise BadKey(
            f"only keys of {KEY_BYTES} bytes are wrapped, and this has {len(key)}; seal values with a data key"
        )


def check_blob(blob: bytes) -> None:
    """Return if `blob` may be a wrapped key: 1 to 4096 bytes. Raises Corrupt."""
    if not isinstance(blob, bytes):
        raise Corrupt(f"a wrapped key is bytes, and this is {type(blob).__name__}")
    if not 1 <= len(blob) <= WRAP_BYTES_MAX:
        raise Corrupt(f"a wrapped key has 1 to {WRAP_BYTES_MAX} bytes, and this has {len(blob)}")


def check_context(context: Mapping[str, str], *, or_raise: type[KmsError]) -> dict[str, str]:
    """A copy of `context`, whose names and values are text of at most 2048 UTF-8 bytes together.

    or_raise: BadKey when wrapping; Corrupt when unwrapping, for nothing was ever wrapped under such a context.
    The copy is what must be used afterwards, so that nobody changes it between the check and the use.
    """
    copy = dict(context)
    size = 0
    for text in (*copy.keys(), *copy.values()):
        if not isinstance(text, str):
            raise or_raise(f"a context holds text, and this one holds {type(text).__name__}")
        try:
            size += len(text.encode())
        except UnicodeEncodeError:
            raise or_raise("a context holds text that UTF-8 can carry, and this one holds a lone surrogate") from None
    if size > CONTEXT_BYTES_MAX:
        raise or_raise(f"a context has at most {CONTEXT_BYTES_MAX} bytes, and this one has {size}")
    return copy
