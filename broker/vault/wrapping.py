"""Wrap one key under several KMS keys, and believe no wrap that has not been opened again.

Where the key comes from, and which record the wraps go into, do not live here.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Protocol

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
