"""Splits a key URI, `SCHEME:WHAT?name=value&…`, into what every adapter needs. What the parts mean is the adapter's."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote

from kms.errors import BadKey


def split_uri(uri: str, *, scheme: str, example: str, options: Collection[str]) -> tuple[str, dict[str, str]]:
    """WHAT, as it stands, and the options, percent-decoded. example: a URI that the message of a refusal shows.

    BadKey: another scheme, nothing behind it, an option that is not among `options`, is empty, or is given twice, or
    holds a NUL character. Messages name options and never their values, among which a secret may be misplaced.
    """
    found, _, rest = uri.partition(":")
    what, _, query = rest.partition("?")
    if found != scheme or not what:
        raise BadKey(f"a key URI of this kind reads like {example}")
    given: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in options:
            known = ", ".join(options) or "none"
            raise BadKey(f"unknown option {name!r}; a {scheme} key takes: {known}")
        if name in given or not value:
            raise BadKey(f"the option {name} is given once, with a value")
        given[name] = decoded(value)
    return what, given


def decoded(text: str) -> str:
    """Percent-encoding undone. BadKey: a NUL character, with which no path, name or address can be meant."""
    plain = unquote(text, errors="surrogateescape")
    if "\0" in plain:
        raise BadKey("a path or name holds a NUL character")
    return plain
