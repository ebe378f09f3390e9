"""Reads what a policy gives an adapter: its settings as a typed struct, its credentials by name. BadSettings otherwise.

An adapter declares its settings as a `Terms` struct; field types and bounds are the check, and an unknown name is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from broker.secret import Secret
from broker.upstream.errors import BadSettings
from broker.upstream.port import Work

TEXT_BYTES_MAX = 8192
"""Largest credential that is read as text."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an adapter's settings are. Values come as text; numbers and choices are read from it."""


T = TypeVar("T", bound=Terms)


def read_terms(kind: type[T], settings: Mapping[str, str]) -> T:
    """The settings as `kind`. BadSettings: one is missing, unknown, or not of its form; the message names it."""
    try:
        return msgspec.convert(dict(settings), kind, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise BadSettings(f"the settings do not fit: {error}. The settings are: {known}") from None
    except UnicodeEncodeError:
        raise BadSettings("the settings do not fit: one of them is no Unicode text") from None


def require_credentials(
    given: Mapping[str, object], *, needed: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> None:
    """Return if there is each that is needed, and none that is not known. BadSettings: names the first that is wrong.

    given: anything by the names that the policy gives.
    """
    for name in needed:
        if name not in given:
            raise BadSettings(f"the credential {name} is missing; name the token that holds it: {name}=TOKEN")
    for name in given:
        if name not in needed and name not in optional:
            known = ", ".join((*needed, *optional)) or "none"
            raise BadSettings(f"there is no credential {name[:64]!r} here; those are: {known}")


def credential_text(work: Work, name: str) -> str:
    """A credential as text, without the line end that files and shells add. BadSettings: missing, empty, or no text."""
    held: Secret | None = work.credentials.get(name)
    if held is None:
        raise BadSettings(f"the credential {name} is missing; name the token that holds it: {name}=TOKEN")
    content = held.reveal()
    try:
        text = content.decode() if 0 < len(content) <= TEXT_BYTES_MAX else ""
    except UnicodeDecodeError:
        text = ""
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or not text.isprintable():
        raise BadSettings(
            f"the credential {name} is no text of one line, of at most {TEXT_BYTES_MAX} bytes; put its value again"
        )
    return text
