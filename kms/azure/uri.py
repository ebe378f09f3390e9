"""Reads `azure-kv:` key URIs. What the key behind one is good for does not live here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kms.errors import BadKey
from kms.key_uri import split_uri

EXAMPLE = "azure-kv:https://NAME.vault.azure.net/keys/KEY"
KEY_URL = re.compile(
    r"(?P<vault>https://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\])(?::(?P<port>[0-9]{1,5}))?)"
    r"/keys/(?P<name>[0-9A-Za-z-]{1,127})(?:/(?P<version>[0-9A-Za-z]{1,64}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VaultKey:
    """What the URI says. version: "" for the newest that may wrap. ca_file: "" for the system's authorities."""

    vault: str
    name: str
    version: str
    ca_file: str


def parse_uri(uri: str) -> VaultKey:
    """`azure-kv:https://HOST[:PORT]/keys/KEY[/VERSION][?ca-file=PATH]`. Raises BadKey."""
    what, options = split_uri(uri, scheme="azure-kv", example=EXAMPLE, options=("ca-file",))
    match = KEY_URL.fullmatch(what)
    if match is None or int(match["port"] or 443) not in range(1, 65536):
        raise BadKey(
            "a key of a vault is an https address with /keys/, a name and perhaps a version, and nothing else:"
            f" {EXAMPLE}"
        )
    return VaultKey(
        vault=match["vault"],
        name=match["name"],
        version=match["version"] or "",
        ca_file=options.get("ca-file", ""),
    )
