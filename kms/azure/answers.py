"""What the service answers, as far as it is used here, and what a version of a key is good for.

Source: https://learn.microsoft.com/rest/api/keyvault/keys (2025-07-01). Answers that refuse are in `translation`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec
from azure.core.rest import AsyncHttpResponse

from kms.errors import BadKey, Corrupt, Disabled

RSA_BITS_MIN = 2048
EXPIRY_WARNING_S = 30 * 24 * 3600

T = TypeVar("T")


class Attributes(msgspec.Struct, frozen=True):
    """What is managed of a version. Times in seconds since 1970. recovery_level: what becomes of a deleted key."""

    enabled: bool = False
    nbf: int | None = None
    exp: int | None = None
    created: int = 0
    exportable: bool = False
    recovery_level: str = msgspec.field(default="", name="recoveryLevel")


class Jwk(msgspec.Struct, frozen=True):
    """The public part of a version. n: the RSA modulus, base64url."""

    kid: str
    kty: str
    n: str = ""
    key_ops: tuple[str, ...] = ()


class KeyBundle(msgspec.Struct, frozen=True):
    """The answer to "get key"."""

    key: Jwk
    attributes: Attributes


class Version(msgspec.Struct, frozen=True):
    """An item of a list of versions."""

    kid: str
    attributes: Attributes


class VersionPage(msgspec.Struct, frozen=True):
    """The answer to "get key versions": in no order, perhaps empty though more pages follow."""

    value: tuple[Version, ...] | None = None
    next_link: str | None = msgspec.field(default=None, name="nextLink")


class Result(msgspec.Struct, frozen=True):
    """The answer to "wrap key" and "unwrap key". value: base64url."""

    kid: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One version of the key as the vault describes it. asked_at: by the vault's clock, None where it did not say."""

    version: str
    kind: str
    bits: int
    operations: frozenset[str]
    attributes: Attributes
    asked_at: float | None

    @property
    def state(self) -> str:
        """As `state_at` says, of when it was asked for."""
        return state_at(self.attributes, self.asked_at)

    @property
    def algorithm(self) -> str:
        """With what this version wraps (docs/spec/kms-azure.md)."""
        return "A256KW" if self.kind == "oct-HSM" else "RSA-OAEP-256"

    def check(self) -> None:
        """Return if this version may wrap and unwrap. Raises BadKey, Disabled."""
        if self.kind not in ("RSA", "RSA-HSM", "oct-HSM"):
            raise BadKey("the key is of a type that wraps nothing; make one of type RSA, RSA-HSM or oct-HSM")
        if self.kind != "oct-HSM" and self.bits < RSA_BITS_MIN:
            raise BadKey(f"the RSA key has {self.bits} bits; make one of {RSA_BITS_MIN} or more")
        missing = sorted({"wrapKey", "unwrapKey"} - self.operations)
        if missing:
            raise BadKey(f"the key does not permit {' and '.join(missing)}; add that to its permitted operations")
        if self.state != "enabled":
            raise Disabled(
                f"no version of the key may wrap: {self.version} is {self.state}; enable it, change its dates, or make"
                " a new version"
            )

    def warnings(self) -> Iterator[str]:
        """What an operator should know of this version, each in one line."""
        attributes = self.attributes
        if self.state != "enabled":
            yield f"the key is {self.state}: it wraps no new data key"
        elif attributes.exp is not None and self.asked_at is not None:
            left_s = attributes.exp - self.asked_at
            if left_s < EXPIRY_WARNING_S:
                yield f"the key expires in {int(left_s // 86400)} days; make a new version, or move the date"
        if attributes.exportable:
            yield "the key is exportable: whoever may release it can open every token outside the vault"
        if not self.kind.endswith("-HSM"):
            yield "the key is protected by software; type RSA-HSM keeps it in hardware"
        if not attributes.recovery_level or "Purgeable" in attributes.recovery_level:
            yield "the vault has no purge protection: a deleted key can be destroyed at once, and its tokens with it"


def state_at(attributes: Attributes, now: float | None) -> str:
    """enabled, disabled, not yet valid or expired; without `now`, dates do not count."""
    if not attributes.enabled:
        return "disabled"
    if now is not None and attributes.nbf is not None and now < attributes.nbf:
        return "not yet valid"
    if now is not None and attributes.exp is not None and now >= attributes.exp:
        return "expired"
    return "enabled"


def decoded(response: AsyncHttpResponse, shape: type[T]) -> T:
    """The body of `response` as a `shape`. Raises Corrupt."""
    try:
        return msgspec.json.decode(response.content, type=shape)
    except msgspec.DecodeError:
        # Unchained: the decoder's words may quote the answer, and the answer may hold a key.
        raise Corrupt("the vault's answer is not what its API reference says; is this address a vault?") from None


def bytes_of(text: str) -> bytes:
    """Base64url without padding, undone. Raises Corrupt."""
    try:
        return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Corrupt("the vault's answer holds text that is not base64url") from None


def answered_at(response: AsyncHttpResponse) -> float | None:
    """The vault's own clock; ours may be wrong, and it is the vault that enforces the dates."""
    try:
        return parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except ValueError:
        return None
