"""A local key as its files say at this moment: read again whenever one of them changes.

What the key is used for is in `adapter`; nothing here wraps or unwraps.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from kms.errors import BadKey, KmsError, Unavailable
from kms.local.document import FILE_BYTES_MAX, parse
from kms.local.opened import OpenedKey, open_document
from kms.local.passphrase import read_passphrase
from kms.local.policy import POLICY_BYTES_MAX, Policy, parse_policy
from kms.local.uri import LocalUri
from kms.private_files import Stamp, read_private, stamp

Stamps = tuple[Stamp | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What the files held when they had these stamps. policy: None if the URI names none."""

    stamps: Stamps
    key: OpenedKey
    policy: Policy | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failed:
    """What reading the files led to when they had these stamps: said again until they change."""

    stamps: Stamps
    error: KmsError


class Watched:
    """Keeps `Loaded` as fresh as the disk: the files are looked at on every call, and read when they changed.

    Holds the private keys in memory until `forget`.
    """

    def __init__(self, *, uri: LocalUri) -> None:
        self._uri = uri
        self._lock = asyncio.Lock()
        self._loaded: Loaded | None = None
        self._failed: _Failed | None = None
        self._closed = False

    async def first(self) -> Loaded:
        """Read the files for the first time. BadKey: one is missing or cannot be used as it is."""
        try:
            self._loaded = await asyncio.to_thread(self._read, self._stamps(), None)
        except OSError as error:
            raise BadKey(_unreadable(error)) from error
        return self._loaded

    async def current(self) -> Loaded:
        """What the files say now.

        Unavailable: one is missing or cannot be read, as when a disk is away; or the key is closed. BadKey: one
        cannot be used as it is. A call that is cancelled leaves the next one to read again.
        """
        loaded = self._unchanged()
        if loaded is not None:
            return loaded
        async with self._lock:
            # Another call may have read the change while this one waited.
            loaded = self._unchanged()
            return loaded if loaded is not None else await self._reload()

    def forget(self) -> None:
        """Drop the private keys; calls from here on are Unavailable."""
        self._closed = True
        self._loaded = None

    def _unchanged(self) -> Loaded | None:
        """What is loaded, if it is still what the disk holds. Raises the failure that the same files led to before."""
        if self._closed:
            raise Unavailable("the key is closed")
        stamps = self._stamps()
        if self._failed is not None and self._failed.stamps == stamps:
            raise type(self._failed.error)(str(self._failed.error))
        if self._loaded is not None and self._loaded.stamps == stamps:
            return self._loaded
        return None

    async def _reload(self) -> Loaded:
        # Taken before reading: a change during the reading leaves older stamps, so the next call reads once more.
        stamps = self._stamps()
        try:
            loaded = await asyncio.to_thread(self._read, stamps, self._loaded)
        except OSError as error:
            raise Unavailable(_unreadable(error)) from error
        except KmsError as error:
            # Remembered, because finding out again may cost a derivation from the passphrase for each call.
            self._failed = _Failed(stamps=stamps, error=error)
            raise
        if self._closed:
            raise Unavailable("the key is closed")
        self._loaded, self._failed = loaded, None
        return loaded

    def _read(self, stamps: Stamps, earlier: Loaded | None) -> Loaded:
        """Runs in a thread: blocks on the disk, and may derive a key from the passphrase."""
        document = parse(read_private(self._uri.key_file, bytes_max=FILE_BYTES_MAX))
        if self._uri.has_passphrase and document.passphrase is None:
            raise BadKey("a passphrase is configured, and the key file is not sealed with one; take one that is")
        key = open_document(
            document,
            passphrase=lambda: read_passphrase(self._uri),
            known=earlier.key if earlier is not None else None,
        )
        return Loaded(stamps=stamps, key=key, policy=self._read_policy())

    def _read_policy(self) -> Policy | None:
        if self._uri.policy_file is None:
            return None
        return parse_policy(read_private(self._uri.policy_file, bytes_max=POLICY_BYTES_MAX, others_may_read=True))

    def _stamps(self) -> Stamps:
        files: tuple[Path | None, ...] = (self._uri.key_file, self._uri.passphrase_file, self._uri.policy_file)
        return tuple(stamp(file) for file in files if file is not None)


def _unreadable(error: OSError) -> str:
    return f"{error.filename or 'a file of this key'}: {error.strerror or type(error).__name__}"
