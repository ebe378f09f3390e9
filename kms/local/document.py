"""The key file as it is written: its fields, bounds and text (docs/spec/kms-local.md, "Key file").

Reading it from disk, and opening the private keys in it, do not live here.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Any, Final, Literal

import msgspec

from kms.errors import BadKey

FORMAT: Final = "tokenbroker/kms-local-key/v1"
FILE_BYTES_MAX = 64 * 1024
"""Largest key file that is read."""
VERSIONS_MAX = 64
"""Most versions in one file."""

_Key32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Sealed = Annotated[bytes, msgspec.Meta(min_length=60, max_length=60)]
_Salt = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


_PLACE = re.compile(r" - at `(\$[a-z_.\[\]0-9]{1,80})`\Z")


class State(Enum):
    """Whether a version may be used. Disabled: it neither wraps nor unwraps, and can be enabled again."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class Argon2Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the passphrase becomes a key: Argon2id (RFC 9106).

    The lower bound on memory keeps a tampered file from making a passphrase cheap to guess; the upper bounds keep it
    from holding up the start for more than a few seconds.
    """

    kdf: Literal["argon2id"] = "argon2id"
    salt: _Salt
    iterations: Annotated[int, msgspec.Meta(ge=1, le=8)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=8)]
    memory_kib: Annotated[int, msgspec.Meta(ge=19 * 1024, le=256 * 1024)]


class VersionEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version. Exactly one of the private keys is there: sealed if the file has a passphrase, else clear."""

    version: _Number
    state: State
    public_key: _Key32
    private_key: _Key32 | None = None
    sealed_private_key: _Sealed | None = None

    def __repr__(self) -> str:
        return f"VersionEntry(version={self.version}, state={self.state.value})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec gives every struct one that shows all fields, which pretty tracebacks would print.
        return [("version", self.version), ("state", self.state.value)]


class KeyDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole key file. `active` names the version that wraps; key_id is random and part of every wrap."""

    format: Literal["tokenbroker/kms-local-key/v1"]
    key_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    active: _Number
    versions: Annotated[tuple[VersionEntry, ...], msgspec.Meta(min_length=1, max_length=VERSIONS_MAX)]
    passphrase: Argon2Entry | None = None


class _AnyFormat(msgspec.Struct):
    format: str


def parse(content: bytes) -> KeyDocument:
    """Read a key file's bytes. BadKey: not such a file, of another format, or inconsistent; never shows a key."""
    problem = "it is not a key file made by tokenbroker"
    try:
        named = msgspec.json.decode(content, type=_AnyFormat).format
        if named == FORMAT:
            return _consistent(msgspec.json.decode(content, type=KeyDocument))
        problem = f"it has the format {named[:60]!r}, and this release reads {FORMAT!r}"
    except msgspec.ValidationError as error:
        problem = f"the key file has a wrong, missing or unknown field at {_place(error)}"
    except msgspec.DecodeError as error:
        problem = f"this is no key file, or a damaged one: {error}; restore it from its copy, or name another"
    except (UnicodeDecodeError, RecursionError):
        pass
    # Raised outside the handlers: those errors carry the file's content, and would be chained to this one.
    raise BadKey(problem)


def _place(error: msgspec.ValidationError) -> str:
    """Where the error is, and not what: msgspec quotes values and names, and either may be a key in the wrong place."""
    found = _PLACE.search(str(error))
    return found[1] if found else "its top level"


def render(document: KeyDocument) -> bytes:
    """The text of a key file that `parse` reads back as an equal document."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _consistent(document: KeyDocument) -> KeyDocument:
    """What single fields cannot say. Raises BadKey."""
    numbers = [entry.version for entry in document.versions]
    if sorted(set(numbers)) != numbers:
        raise BadKey("the versions of a key file have different numbers, in rising order")
    if document.active not in numbers:
        raise BadKey(f"the active version {document.active} is not among the versions of the key file")
    sealed = document.passphrase is not None
    for entry in document.versions:
        if (entry.sealed_private_key is not None) != sealed or (entry.private_key is not None) == sealed:
            wanted = "sealed_private_key" if sealed else "private_key"
            raise BadKey(f"version {entry.version} of the key file needs {wanted}, and no other private key")
    return document
