"""Make and change key files: what `tokenbroker init` and operators do, blocking, outside the broker's event loop.

A running broker notices the change by itself (`watched`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kms.errors import BadKey
from kms.local.document import FILE_BYTES_MAX, FORMAT, VERSIONS_MAX, KeyDocument, State, VersionEntry, parse, render
from kms.local.opened import open_document
from kms.local.passphrase import check_passphrase, derive_sealing_key, fresh_parameters, seal_private_key
from kms.private_files import create_private, locked, read_private, replace_private


def create_key_file(path: Path, passphrase: bytes | None = None) -> None:
    """Make a key file with one enabled, active version; mode 0600, durable when this returns.

    passphrase: 1 to 1024 bytes, under which the private keys are sealed. BadKey: `path` exists (it is left as it
    is), the folder is missing or full, or the passphrase is out of bounds.
    """
    key_id = secrets.token_hex(16)
    parameters = None
    sealing_key = None
    if passphrase is not None:
        check_passphrase(passphrase)
        parameters = fresh_parameters()
        sealing_key = derive_sealing_key(passphrase, parameters)
    first = _fresh_version(1, key_id=key_id, sealing_key=sealing_key)
    document = KeyDocument(format=FORMAT, key_id=key_id, active=1, versions=(first,), passphrase=parameters)
    with _explained(path):
        create_private(path, render(document))


def add_version(path: Path, passphrase: bytes | None = None) -> int:
    """Add a fresh, enabled version and make it the active one; returns its number. Older versions keep opening.

    passphrase: that of the file, if it has one; all versions of a file are under the same. BadKey: the file cannot be
    used, is being changed by another process, has 64 versions already, or the passphrase is missing, wrong or too much.
    """
    path = path.resolve()  # a rename onto a symbolic link would replace the link, not the file
    with _explained(path), locked(path):
        document = _read(path)
        if len(document.versions) >= VERSIONS_MAX:
            raise BadKey(f"{path} has {VERSIONS_MAX} versions, the most there can be; make another key file")
        sealing_key = _sealing_key(document, passphrase)
        number = document.versions[-1].version + 1
        fresh = _fresh_version(number, key_id=document.key_id, sealing_key=sealing_key)
        changed = msgspec.structs.replace(document, active=number, versions=(*document.versions, fresh))
        replace_private(path, render(changed))
    return number


def set_state(path: Path, version: int, state: State) -> None:
    """Enable or disable one version, the active one included; needs no passphrase, and may be repeated.

    BadKey: the file cannot be used, is being changed by another process, or has no such version.
    """
    path = path.resolve()
    with _explained(path), locked(path):
        document = _read(path)
        if version not in {entry.version for entry in document.versions}:
            raise BadKey(f"{path} has no version {version}")
        entries = tuple(
            msgspec.structs.replace(entry, state=state) if entry.version == version else entry
            for entry in document.versions
        )
        replace_private(path, render(msgspec.structs.replace(document, versions=entries)))


def _read(path: Path) -> KeyDocument:
    return parse(read_private(path, bytes_max=FILE_BYTES_MAX))


def _sealing_key(document: KeyDocument, passphrase: bytes | None) -> bytes | None:
    """The key to seal another version with, None for a file without passphrase. Raises BadKey."""
    if document.passphrase is None:
        if passphrase is not None:
            raise BadKey("a passphrase was given, and the key file has none; it is chosen when a file is made")
        return None
    if passphrase is None:
        raise BadKey("the key file needs its passphrase to take another version")
    check_passphrase(passphrase)
    # A version under a mistyped passphrase would lock the operator out of the file at the next start.
    open_document(document, passphrase=lambda: passphrase)
    return derive_sealing_key(passphrase, document.passphrase)


def _fresh_version(number: int, *, key_id: str, sealing_key: bytes | None) -> VersionEntry:
    private_key = X25519PrivateKey.generate()
    public = private_key.public_key().public_bytes_raw()
    raw = private_key.private_bytes_raw()
    if sealing_key is None:
        return VersionEntry(version=number, state=State.ENABLED, public_key=public, private_key=raw)
    sealed = seal_private_key(raw, sealing_key=sealing_key, key_id=key_id, version=number, public_key=public)
    return VersionEntry(version=number, state=State.ENABLED, public_key=public, sealed_private_key=sealed)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror or type(error).__name__}") from error
