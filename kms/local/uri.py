"""The URI of a local key: `local:PATH?passphrase-file=PATH|passphrase-env=VAR&policy=PATH`.

Percent-encoding is undone in PATH and in the values. Whether the files exist and may be used is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kms.errors import BadKey

SCHEME = "local"
_OPTIONS = ("passphrase-file", "passphrase-env", "policy")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalUri:
    """Where a local key, its passphrase and its policy are. At most one of the two passphrase fields is set."""

    uri: str
    key_file: Path
    passphrase_file: Path | None = None
    passphrase_env: str | None = None
    policy_file: Path | None = None

    @property
    def has_passphrase(self) -> bool:
        """Whether the URI says where a passphrase is."""
        return self.passphrase_file is not None or self.passphrase_env is not None


def parse_uri(uri: str) -> LocalUri:
    """Read `uri`; relative paths are taken from the working directory at this moment, once.

    BadKey: another scheme, no path, an unknown, empty or repeated option, both passphrase options, a NUL character.
    """
    scheme, _, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    if scheme != SCHEME or not path:
        raise BadKey("a local key URI reads local:PATH, for example local:/var/lib/tokenbroker/kms.key")
    options = _options(query)
    if "passphrase-file" in options and "passphrase-env" in options:
        raise BadKey("name the passphrase once: passphrase-file or passphrase-env, not both")
    return LocalUri(
        uri=uri,
        key_file=_path(path),
        passphrase_file=_path(options["passphrase-file"]) if "passphrase-file" in options else None,
        passphrase_env=_decoded(options["passphrase-env"]) if "passphrase-env" in options else None,
        policy_file=_path(options["policy"]) if "policy" in options else None,
    )


def _options(query: str) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            # The name alone: what follows may be a passphrase that somebody put into the URI by mistake.
            raise BadKey(f"unknown option {name!r}; a local key takes {', '.join(_OPTIONS)}")
        if name in options or not value:
            raise BadKey(f"the option {name} is given once, with a value")
        options[name] = value
    return options


def _path(text: str) -> Path:
    return Path(_decoded(text)).absolute()


def _decoded(text: str) -> str:
    decoded = unquote(text, errors="surrogateescape")
    if "\0" in decoded:
        raise BadKey("a path or name holds a NUL character")
    return decoded
