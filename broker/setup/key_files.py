"""Make the key files of local KMS keys that the configuration names and that are not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker.errors import StartRefused
from broker.foundations import named_keys, places_of
from broker.settings import Settings
from kms.errors import BadKey
from kms.local import create_key_file
from kms.local.passphrase import read_passphrase
from kms.local.uri import SCHEME, parse_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFiles:
    """made, there: paths, by what was found."""

    made: tuple[Path, ...]
    there: tuple[Path, ...]


def make_key_files(settings: Settings, *, founded: bool) -> KeyFiles:
    """Make the missing key files, mode 0600; never touch one that is there. Blocks; a passphrase takes about 0.2 s.

    founded: the database belongs to a cluster already, so a missing key file is a lost one. StartRefused: such a one,
    or a file that cannot be made.
    """
    made: list[Path] = []
    there: list[Path] = []
    for uri in named_keys(settings):
        if not uri.startswith(f"{SCHEME}:"):
            continue
        try:
            local = parse_uri(uri)
            if local.key_file.exists():
                there.append(local.key_file)
                continue
            if founded:
                raise StartRefused(
                    f"the database is that of an existing cluster, and the key file {local.key_file} is missing: "
                    "restore it from its backup. A fresh key would open nothing that is in this database"
                )
            create_key_file(local.key_file, read_passphrase(local) if local.has_passphrase else None)
        except BadKey as error:
            raise StartRefused(f"{places_of(uri, settings)}: {error}") from None
        except OSError as error:
            raise StartRefused(f"a file of the KMS key {uri} cannot be used: {error.strerror}") from None
        made.append(local.key_file)
    return KeyFiles(made=tuple(made), there=tuple(there))
