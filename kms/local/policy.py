"""Which keyrings and which workers a local key serves (docs/spec/kms-local.md, "Policy file").

A file decides, never the network; grants, which say who may lease which token, are the broker's and not known here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from kms.errors import BadKey, Denied
from kms.port import Caller

POLICY_BYTES_MAX = 256 * 1024
"""Largest policy file that is read."""
NO_KEYRING = "the context names no keyring, and the key's policy decides by keyring"

_Names = Annotated[frozenset[str], msgspec.Meta(max_length=1000)]
_Chosen = Annotated[frozenset[str], msgspec.Meta(min_length=1, max_length=1000)]


class Allow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """These workers, and the members of these groups, may have keys of these keyrings unwrapped. Exact names."""

    keyrings: _Chosen
    workers: _Names = frozenset()
    groups: _Names = frozenset()

    def covers(self, caller: Caller, keyring: str) -> bool:
        """Whether this rule allows it."""
        named = caller.worker in self.workers or not self.groups.isdisjoint(caller.groups)
        return named and keyring in self.keyrings


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy file. keyrings: the only ones this key serves at all; None serves every one."""

    format: Literal["tokenbroker/kms-local-policy/v1"]
    keyrings: _Chosen | None = None
    allow: Annotated[tuple[Allow, ...], msgspec.Meta(max_length=1000)] = ()

    def admit(self, context: Mapping[str, str], caller: Caller | None) -> None:
        """Return if the key may be used for this context and, where one is given, this caller. Raises Denied."""
        keyring = context.get("keyring")
        if self.keyrings is not None and keyring not in self.keyrings:
            raise Denied(_unserved(keyring))
        if caller is None:
            return
        if keyring is None:
            raise Denied(NO_KEYRING)
        if not any(rule.covers(caller, keyring) for rule in self.allow):
            raise Denied(f"the key's policy does not allow worker {caller.worker!r} for keyring {keyring!r}")


def _unserved(keyring: str | None) -> str:
    if keyring is None:
        return NO_KEYRING
    if not keyring:
        return 'the key\'s policy does not serve the root key: put "" beside the other names in its keyrings'
    return f"the key's policy does not serve keyring {keyring!r}"


def admit(policy: Policy | None, context: Mapping[str, str], caller: Caller | None) -> None:
    """As `Policy.admit`. Without a policy every context is served, and every caller is Denied.

    A key that cannot decide per worker must not pretend to: its keyring would count as authorised by the KMS.
    """
    if policy is not None:
        policy.admit(context, caller)
    elif caller is not None:
        raise Denied("this key has no policy, so it decides for no worker; add ?policy=PATH to its URI")


def parse_policy(content: bytes) -> Policy:
    """Read a policy file's bytes. BadKey: not TOML, an unknown key, a wrong type, another format."""
    try:
        return msgspec.convert(tomllib.loads(content.decode()), Policy)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise BadKey(f"the policy file cannot be read: {error}") from error
