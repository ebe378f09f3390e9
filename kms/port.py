"""The KMS port: wrapping and unwrapping 32-byte keys under a named key that never leaves the KMS.

The laws are executable in `kms.conformance`. Adapters are named only in `kms.catalog` (and found through the entry
point group `tokenbroker.kms`). Errors are those of `kms.errors`, already translated from the SDK's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

KEY_BYTES = 32
"""Size of every key that is wrapped or unwrapped."""
WRAP_BYTES_MAX = 4096
"""Largest wrapped key that is accepted from, or handed to, a KMS."""
CONTEXT_BYTES_MAX = 2048
"""Most bytes of a context, names and values together, UTF-8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrap:
    """A wrapped key. key_version: the KMS key's version that made it, "" where the KMS does not say."""

    key_version: str
    blob: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The worker on whose behalf a key is unwrapped; only for keyrings that authorise at the KMS."""

    worker: str
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What `describe` tells people. hsm: keys live in hardware. warnings: said at start, one line each."""

    provider: str
    state: str
    key_version: str
    hsm: bool
    warnings: tuple[str, ...] = field(default=())


class Kms(Protocol):
    """One KMS key."""

    @property
    def uri(self) -> str:
        """The key URI as configured: names this key in errors, records and metrics. Holds no secret."""
        ...

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """Wrap 32 bytes so that only this KMS key opens them again, and only under an equal context.

        The context is authenticated, not secret. Raises Unavailable, Denied, BadKey.
        """
        ...

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """The 32 bytes that `wrap` was made from, under an equal context.

        caller: given only when this KMS decides per worker; it must then answer for that worker alone.
        Unavailable: no answer. Denied: refused (also for this caller). Corrupt: changed blob, other key, other context.
        """
        ...

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """A fresh random 32-byte key and its wrap, as `wrap` makes it. Raises what `wrap` raises."""
        ...

    async def check(self) -> None:
        """Return if the key can wrap and unwrap now; raise what they would raise."""
        ...

    async def describe(self) -> Description:
        """What operators should see of this key. Raises Unavailable, Denied, BadKey."""
        ...


@runtime_checkable
class WrapsOnly(Protocol):
    """What a Kms says of itself besides, if what opens its wraps may be elsewhere; one that says nothing opens them."""

    @property
    def wraps_only(self) -> bool:
        """Whether `unwrap` is Denied here to everybody, always, and that is no fault."""
        ...


def wraps_only(kms: object) -> bool:
    """Whether this Kms wraps, and never opens here."""
    return isinstance(kms, WrapsOnly) and kms.wraps_only


class KmsProvider(Protocol):
    """What an entry point in `tokenbroker.kms` names: opens keys of one URI scheme."""

    def __call__(self, uri: str) -> AbstractAsyncContextManager[Kms]:
        """Open the key that `uri` names; closed when the context ends.

        BadKey: the URI or what it points to is wrong.
        """
        ...
