"""Splits a key URI, `SCHEME:WHAT?name=value&…`, into what every adapter needs. What the parts mean is the adapter's."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import unquote

from kms.errors import BadKey

_NAME = re.compile(r"[a-z][a-z_-]{0,23}", re.ASCII)


def split_uri(uri: str, *, scheme: str, example: str, options: Collection[str]) -> tuple[str, dict[str, str]]:
    """WHAT, as it stands, and the options, percent-decoded. example: a URI that the message of a refusal shows.

    BadKey: another scheme, nothing behind it, an option that is not among `options`, is empty, or is given twice, or
    holds a NUL character. Messages name options and never their values, for a secret may be misplaced there.
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
            raise BadKey(f"unknown option{named(part)}; a {scheme} key takes: {known}")
        if name in given or not value:
            raise BadKey(f"the option {name} is given once, with a value")
        given[name] = decoded(value)
    return what, given


def named(part: str) -> str:
    """The unknown name in `NAME=value`, quoted behind a space; nothing if it may be a value without a name."""
    name, given, _ = part.partition("=")
    return f" {name!r}" if given and _NAME.fullmatch(name) else ""


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address. A name is none, even localhost: where it leads, somebody else decides."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def decoded(text: str) -> str:
    """Percent-encoding undone. BadKey: a NUL character, with which no path, name or address can be meant."""
    plain = unquote(text, errors="surrogateescape")
    if "\0" in plain:
        raise BadKey("a path or name holds a NUL character")
    return plain
