"""The URI of a local key: `local:PATH?passphrase-file=PATH|passphrase-env=VAR&policy=PATH`.

Percent-encoding is undone in PATH and in the values. Whether the files exist and may be used is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kms.errors import BadKey
from kms.key_uri import decoded, split_uri

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
    path, options = split_uri(uri, scheme=SCHEME, example="local:/var/lib/tokenbroker/kms.key", options=_OPTIONS)
    if "passphrase-file" in options and "passphrase-env" in options:
        raise BadKey("name the passphrase once: passphrase-file or passphrase-env, not both")
    return LocalUri(
        uri=uri,
        key_file=_path(decoded(path)),
        passphrase_file=_path(options["passphrase-file"]) if "passphrase-file" in options else None,
        passphrase_env=options.get("passphrase-env"),
        policy_file=_path(options["policy"]) if "policy" in options else None,
    )


def _path(text: str) -> Path:
    return Path(text).absolute()
