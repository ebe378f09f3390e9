"""Wrap one key under several KMS keys, believing no wrap that has not been opened again; and find who can open which.

Where the key comes from, and which record the wraps go into, do not live here.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from kms.errors import BadKey, Corrupt
from kms.port import Caller, Wrap, wraps_only
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
    not unwrap, or an adapter that wraps something else. Raises what the wrappers raise, and Corrupt for the latter. A
    wrapper that only wraps is believed. BadKey: all of them only wrap, so nothing would open the key from now on.
    """
    if all(wraps_only(wrapper) for wrapper in wrappers):
        which = ", ".join(wrapper.uri for wrapper in wrappers)
        raise BadKey("that only wraps, and nothing would open the key again; name a KMS key beside it", kms_key=which)
    wraps: list[WrapRecord] = []
    for wrapper in wrappers:
        wrap = await wrapper.wrap(key, context)
        if not wraps_only(wrapper) and not hmac.compare_digest(await wrapper.unwrap(wrap, context), key):
            raise Corrupt("it wrapped a key and opened the wrap to another", kms_key=wrapper.uri)
        wraps.append(WrapRecord(kms_key=wrapper.uri, key_version=wrap.key_version, blob=wrap.blob))
    return tuple(wraps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """A KMS key, and a wrap that it may open."""

    kms_key: str
    wrap: WrapRecord

    @property
    def certain(self) -> bool:
        """Whether the wrap names this very key; otherwise it may have been made under another name."""
        return self.wrap.kms_key == self.kms_key


def openings(wraps: Sequence[WrapRecord], kms_keys: Sequence[str]) -> tuple[Opening, ...]:
    """Which of these KMS keys may open which wrap, in the order of asking the keys.

    A key opens the wraps that name it. A key that no wrap names opens those of the same key with other options (a
    recovery key whose private half was put back, another passphrase file), unless another of `kms_keys` is named there.
    If nothing is found so, each key is paired with each wrap of its kind: a key that moved (a file in another folder)
    opens what it made under its former name, and what another key made it does not open.
    """
    named = set(kms_keys)
    unclaimed = [wrap for wrap in wraps if wrap.kms_key not in named]
    found: list[Opening] = []
    for uri in kms_keys:
        own = [wrap for wrap in wraps if wrap.kms_key == uri]
        own = own or [wrap for wrap in unclaimed if is_same_key(wrap.kms_key, uri)]
        found += [Opening(kms_key=uri, wrap=wrap) for wrap in own]
    found = found or [
        Opening(kms_key=uri, wrap=wrap) for uri in kms_keys for wrap in wraps if _kind(uri) == _kind(wrap.kms_key)
    ]
    return tuple(found)


def openable(wraps: Sequence[WrapRecord], kms_keys: Sequence[str]) -> tuple[WrapRecord, ...]:
    """The wraps of `openings`, each under the name that its KMS key has now."""
    return tuple(
        each.wrap if each.certain else msgspec.structs.replace(each.wrap, kms_key=each.kms_key)
        for each in openings(wraps, kms_keys)
    )


def is_same_key(one: str, another: str) -> bool:
    """Whether two key URIs name the same key, perhaps with different options."""
    return one.partition("?")[0] == another.partition("?")[0]


def _kind(kms_key: str) -> str:
    """The scheme of a key URI."""
    return kms_key.partition(":")[0]
