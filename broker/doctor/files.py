"""Who owns the files of an installation, and who else can reach them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from broker.doctor.findings import Finding, failed, ok, warning
from broker.exclusive import database_file
from broker.private_files import exposure
from broker.settings import Settings
from broker.setup.layout import Layout


def examine_files(layout: Layout, settings: Settings) -> Iterator[Finding]:
    """Look at the configuration, the data folder, the database, the TLS key and the profile. Blocks on the disk."""
    yield _configuration(layout.config)
    database = database_file(settings.storage.url) if settings.storage.url else None
    if database is not None:
        yield _folder(database.absolute().parent)
        yield from _private("database file", database)
    if settings.server.tls_key is not None:
        yield from _private("TLS key", settings.server.tls_key)
    yield from _private("profile", layout.profile)


def _configuration(path: Path) -> Finding:
    status = path.stat()
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        return failed("configuration file", f"{path} can be changed by other users (mode {mode:o}): chmod go-w {path}")
    if status.st_uid not in (os.geteuid(), 0):
        return failed("configuration file", f"{path} belongs to user {status.st_uid}, who can change it: chown it")
    return ok("configuration file", f"{path} can be changed by its owner only")


def _folder(folder: Path) -> Finding:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        return failed("data folder", f"other users can replace files in {folder} (mode {mode:o}): chmod 700 {folder}")
    if mode & 0o055:
        return warning("data folder", f"other users can see the names in {folder} (mode {mode:o}): chmod 700 {folder}")
    return ok("data folder", f"{folder} is closed to other users")


def _private(check: str, path: Path) -> Iterator[Finding]:
    """Nothing is said of a file that is not there: whoever needs it says so."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    reason = exposure(status)
    yield failed(check, f"{path} {reason} {path}") if reason else ok(check, f"{path} is closed to other users")
