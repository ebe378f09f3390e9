"""Choose which sealed versions to open: one of each data key, and some at random. Keys only, so memory stays small."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

from storage.records import VersionRecord
from storage.table import Key, Record

RANDOM: Final = 100
"""Versions that are chosen at random, whatever their data key."""
DATA_KEYS_MAX: Final = 1000
"""Most data keys of which one version is chosen."""


class Samples:
    """Sees every version once, and remembers a few. Each version has the same chance (Vitter's algorithm R)."""

    def __init__(self) -> None:
        self._seen = 0
        self._random: list[Key] = []
        self._by_data_key: dict[str, Key] = {}

    def see(self, record: Record) -> None:
        """Take notice of a record; those that are no sealed versions are passed over."""
        if not isinstance(record, VersionRecord) or record.stage == "destroyed":
            return
        self._seen += 1
        if len(self._by_data_key) < DATA_KEYS_MAX:
            self._by_data_key.setdefault(record.data_key, record.key)
        if len(self._random) < RANDOM:
            self._random.append(record.key)
        elif (at := secrets.randbelow(self._seen)) < RANDOM:
            self._random[at] = record.key

    def __iter__(self) -> Iterator[Key]:
        """Each chosen key once."""
        return iter(dict.fromkeys((*self._by_data_key.values(), *self._random)))
