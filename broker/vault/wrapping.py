"""Wrap one key under several KMS keys, believing no wrap that has not been opened again; and find who can open which.

Where the key comes from, and which record the wraps go into, do not live here.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from kms.errors import Corrupt
from kms.port import Caller, Wrap
from storage.records import WrapRecord


class Wrapper(Protocol):
    """The part of a Kms that wrapping needs."""

    @property
    def uri(self) -> str:
        """The key URI."""
        ...

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As `Kms.wrap`."""
        ...

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As `Kms.unwrap`."""
        ...


async def wrap_for_all(
    key: bytes, *, wrappers: Sequence[Wrapper], context: Mapping[str, str]
) -> tuple[WrapRecord, ...]:
    """One wrap per KMS key, in their order, each opened again before the next is made. All, or an error.

    What would be found out too late otherwise, with values sealed under the key: a KMS that lets the broker wrap and
    not unwrap, or an adapter that wraps something else. Raises what the wrappers raise, and Corrupt for the latter.
    """
    wraps: list[WrapRecord] = []
    for wrapper in wrappers:
        wrap = await wrapper.wrap(key, context)
        if not hmac.compare_digest(await wrapper.unwrap(wrap, context), key):
            raise Corrupt("it wrapped a key and opened the wrap to another", kms_key=wrapper.uri)
        wraps.append(WrapRecord(kms_key=wrapper.uri, key_version=wrap.key_version, blob=wrap.blob))
    return tuple(wraps)


def openable(wraps: Sequence[WrapRecord], kms_keys: Sequence[str]) -> tuple[WrapRecord, ...]:
    """The wraps that these KMS keys made, in the order of asking the keys.

    If no wrap names any of them, each key is paired with each wrap of its kind: a key that moved (a file in another
    folder) opens what it made under its former name, and what another key made it does not open.
    """
    made = tuple(wrap for uri in kms_keys for wrap in wraps if wrap.kms_key == uri)
    if made:
        return made
    return tuple(
        msgspec.structs.replace(wrap, kms_key=uri)
        for uri in kms_keys
        for wrap in wraps
        if _kind(uri) == _kind(wrap.kms_key)
    )


def _kind(kms_key: str) -> str:
    """The scheme of a key URI."""
    return kms_key.partition(":")[0]
