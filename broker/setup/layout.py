"""Where the files of one installation are."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from broker.errors import StartRefused

_REMAINS = re.compile(
    r"\.(broker\.toml|kms\.key|profile\.toml|audit\.vkey|founding\.json)\.[0-9a-f]{16}\.tmp|\.broker\.toml\.init"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """folder: the data directory. config: the file to serve from."""

    folder: Path
    config: Path

    @property
    def key_file(self) -> Path:
        """The local KMS key of a configuration that `init` writes."""
        return self.folder / "kms.key"

    @property
    def database(self) -> Path:
        """The database of a configuration that `init` writes."""
        return self.folder / "broker.db"

    @property
    def profile(self) -> Path:
        """The first admin's profile."""
        return self.folder / "profile.toml"

    @property
    def audit_vkey(self) -> Path:
        """The public key that verifies the audit log: for auditors to keep out of reach of this machine."""
        return self.folder / "audit.vkey"

    @property
    def pending_root(self) -> Path:
        """The wrapped root of a cluster whose founding has begun and not ended."""
        return self.folder / "founding.json"


def layout_of(*, data_dir: Path | None, config: Path | None) -> Layout:
    """The layout for the folder, the configuration, or both; absolute. StartRefused: neither is given."""
    if data_dir is None and config is None:
        raise StartRefused("name a data directory (--data-dir D), a configuration (--config F), or both")
    folder = (data_dir or (config or Path()).parent).absolute()
    return Layout(folder=folder, config=(config or folder / "broker.toml").absolute())


def make_folder(folder: Path) -> str:
    """Make the data directory with mode 0700, or close an empty one to others; says what was done.

    StartRefused: it cannot be made, is no folder, or belongs to somebody else.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return _adopted(folder)
    except OSError as error:
        raise StartRefused(f"the folder {folder} cannot be made ({error.strerror})") from None
    folder.chmod(0o700)
    return "made"


def _adopted(folder: Path) -> str:
    if not folder.is_dir():
        raise StartRefused(f"{folder} is not a folder; name another data directory")
    status = folder.stat()
    if status.st_uid != os.geteuid() and os.geteuid() != 0:
        raise StartRefused(f"{folder} belongs to user {status.st_uid}; chown it, or name another data directory")
    if not status.st_mode & 0o077:
        return "there already"
    if not any(folder.iterdir()):
        folder.chmod(0o700)
        return "there already, closed to other users"
    return f"there already, OPEN TO OTHER USERS (mode {stat.S_IMODE(status.st_mode):o}): chmod 700"


def clear_remains(folder: Path) -> None:
    """Remove files that a crashed `init` was writing: they may hold a key or credential that was never used.

    Call it while nobody else initialises this folder. OSError: one cannot be removed.
    """
    for path in folder.iterdir():
        if _REMAINS.fullmatch(path.name):
            path.unlink(missing_ok=True)
