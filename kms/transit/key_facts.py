"""What a transit key is, as far as the server tells: whether it may be used at all, and what operators should know."""

from __future__ import annotations

import msgspec

from kms.errors import BadKey, Disabled

TYPES = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305")
"""The types of keys that authenticate associated data."""


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a key; absent ones are those of servers that do not have them yet."""

    type: str
    latest_version: int
    derived: bool = False
    convergent_encryption: bool = False
    exportable: bool = False
    allow_plaintext_backup: bool = False
    deletion_allowed: bool = False
    soft_deleted: bool = False
    imported_key: bool = False


class KeyAnswer(msgspec.Struct, frozen=True):
    """The answer to reading a key."""

    data: KeyFacts


def check_usable(facts: KeyFacts) -> None:
    """Return if the key can wrap as the port asks. BadKey: it is of another kind. Disabled: it is soft-deleted."""
    if facts.type not in TYPES:
        raise BadKey(f"a key of type {facts.type[:40]} binds no context; make one of type {' or '.join(TYPES)}")
    if facts.derived or facts.convergent_encryption:
        raise BadKey(
            "a derived or convergent key cannot be used, as equal keys could be told from their wraps; make a plain one"
        )
    if facts.soft_deleted:
        raise Disabled("the key is soft-deleted; restore it, or take another key of the keyring")


def warnings_of(facts: KeyFacts) -> tuple[str, ...]:
    """What operators should change, one line each."""
    said = {
        "the key is exportable: whoever may export it can open every token; such a key cannot be made safe again": (
            facts.exportable
        ),
        "the key allows plaintext backups: whoever may back it up can open every token": facts.allow_plaintext_backup,
        "the key was imported: who else has it, the server does not know": facts.imported_key,
        "the key may be deleted (deletion_allowed): with it every token would be lost": facts.deletion_allowed,
    }
    return tuple(line for line, holds in said.items() if holds)
