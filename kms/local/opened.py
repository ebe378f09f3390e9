"""A key file's versions with their private keys open, ready to use. In memory only.

The text of the file is in `document`; when to read it again is in `watched`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from kms.errors import BadKey, Corrupt, Disabled
from kms.local.document import KeyDocument, State, VersionEntry
from kms.local.passphrase import derive_sealing_key, open_private_key


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyVersion:
    """One version, open."""

    number: int
    state: State
    public_key: X25519PublicKey
    private_key: X25519PrivateKey

    def __repr__(self) -> str:
        return f"KeyVersion(number={self.number}, state={self.state.value})"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedKey:
    """All versions of one key file, open."""

    key_id: str
    active: int
    sealed: bool
    versions: Mapping[int, KeyVersion]

    @property
    def active_version(self) -> KeyVersion:
        """The version that wraps, whatever its state."""
        return self.versions[self.active]

    def wrapping_version(self) -> KeyVersion:
        """The version that wraps. Raises Disabled."""
        return _enabled(self.active_version)

    def unwrapping_version(self, number: int) -> KeyVersion:
        """The version with this number. Disabled: it is. Corrupt: there is none, so no wrap names it."""
        version = self.versions.get(number)
        if version is None:
            raise Corrupt(f"the wrapped key names version {number}, and the key file has none of that number")
        return _enabled(version)


def open_document(
    document: KeyDocument, *, passphrase: Callable[[], bytes], known: OpenedKey | None = None
) -> OpenedKey:
    """Open every private key of `document`.

    passphrase: called once, and only if a sealed private key has to be opened. known: what was opened before; a
    sealed version whose public key is known is taken from there, so that enabling and disabling versions of a
    running broker needs no passphrase. Raises BadKey, and what `passphrase` raises. Derives a key if it needs the
    passphrase: never on the event loop.
    """
    public_keys = {version.public_key.public_bytes_raw(): version for version in _versions(known)}
    sealing_key: bytes | None = None
    versions: dict[int, KeyVersion] = {}
    for entry in document.versions:
        earlier = public_keys.get(entry.public_key)
        if entry.private_key is not None:
            private_key = _private_key(entry, entry.private_key)
        elif earlier is not None:
            private_key = earlier.private_key
        else:
            sealing_key = sealing_key or _sealing_key(document, passphrase)
            private_key = _private_key(entry, _unsealed(entry, document.key_id, sealing_key))
        versions[entry.version] = KeyVersion(
            number=entry.version, state=entry.state, public_key=private_key.public_key(), private_key=private_key
        )
    sealed = document.passphrase is not None
    return OpenedKey(key_id=document.key_id, active=document.active, sealed=sealed, versions=versions)


def _versions(known: OpenedKey | None) -> tuple[KeyVersion, ...]:
    return tuple(known.versions.values()) if known is not None else ()


def _sealing_key(document: KeyDocument, passphrase: Callable[[], bytes]) -> bytes:
    if document.passphrase is None:
        raise BadKey("the key file seals its private keys without saying how")
    return derive_sealing_key(passphrase(), document.passphrase)


def _unsealed(entry: VersionEntry, key_id: str, sealing_key: bytes) -> bytes:
    if entry.sealed_private_key is None:
        raise BadKey(f"version {entry.version} of the key file has no private key")
    return open_private_key(
        entry.sealed_private_key,
        sealing_key=sealing_key,
        key_id=key_id,
        version=entry.version,
        public_key=entry.public_key,
    )


def _private_key(entry: VersionEntry, raw: bytes) -> X25519PrivateKey:
    """The private key, if it is the one that belongs to the entry's public key. Raises BadKey."""
    private_key = X25519PrivateKey.from_private_bytes(raw)
    if private_key.public_key().public_bytes_raw() != entry.public_key:
        # A damaged private key would wrap new keys without complaint, and open none of the old ones.
        raise BadKey(f"the private and public key of version {entry.version} do not belong together; restore the file")
    return private_key


def _enabled(version: KeyVersion) -> KeyVersion:
    if version.state is not State.ENABLED:
        raise Disabled(
            f"version {version.number} of the key is disabled; enable it, or take another key of the keyring"
        )
    return version
