"""Keys of single values, kept beside the data key that they were derived from, so that opening one again is cheap.

They live no longer than their data key and open nothing that it does not. Which data key may serve is `key_cache`'s.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from broker.vault.chunked import MessageKey
from broker.vault.envelope import ValueKey, open_value
from broker.vault.held_keys import HeldKey
from storage.records import VersionRecord

MESSAGE_KEYS_MAX: Final = 4096
"""Versions remembered, those of all data keys together, with a key of 2.6 KiB each and their sealed form, which is less
than a chunk; beyond, the first one goes."""


class MessageKeys:
    """Opens versions, and keeps the keys of those opened more than once: a single opening is cheaper without."""

    def __init__(self, *, bound: int = MESSAGE_KEYS_MAX) -> None:
        self._bound = bound
        self._remembered: deque[tuple[HeldKey, bytes]] = deque()

    def open(self, held: HeldKey, record: VersionRecord) -> bytes:
        """The value of `record`. SealBroken: the row is not what was sealed, or `held` was wiped."""
        kept = held.messages.get(record.sealed)
        if kept is not None and kept[0] is record:  # derived for this very row: nothing about it can be another
            return kept[1].open(record.sealed)
        return self._open_seldom(held, record)

    def _open_seldom(self, held: HeldKey, record: VersionRecord) -> bytes:
        fmt, sealed = record.fmt, record.sealed
        context = held.need.value_contexts.of(record.token, record.version)
        if sealed not in held.messages:
            value = open_value(fmt=fmt, key=held.key, context=context, sealed=sealed)
            if MessageKey.fits(sealed):
                self._remember(held, sealed)
            return value
        key = ValueKey(fmt=fmt, key=held.key, context=context, sealed=sealed)
        value = key.open(sealed)
        held.messages[sealed] = (record, key)
        return value

    def _remember(self, held: HeldKey, sealed: bytes) -> None:
        held.messages[sealed] = None
        self._remembered.append((held, sealed))
        if len(self._remembered) > self._bound:
            first, oldest = self._remembered.popleft()
            first.messages.pop(oldest, None)
