"""How many values a data key may still seal, and when it is due to be replaced.

Writing a reservation down (by compare-and-set, so that replicas share one count) does not live here.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from broker.vault.errors import ReservationNeeded
from broker.vault.settings import VaultSettings
from storage.records import DataKeyRecord


def needs_rotation(record: DataKeyRecord, *, now: datetime, settings: VaultSettings) -> bool:
    """Whether an active data key is old, or has been reserved, enough that another should take over."""
    if record.state != "active":
        return False
    spent = record.seals_reserved + settings.seals_block > settings.seals_max
    return spent or now - record.created_at >= timedelta(days=settings.active_days)


class SealBudget:
    """The seals this process has set aside. What is left when it ends is lost, so counts err upwards only."""

    def __init__(self, *, settings: VaultSettings) -> None:
        self._settings = settings
        self._left: dict[str, int] = {}

    def propose(self, record: DataKeyRecord) -> DataKeyRecord:
        """The next revision of `record`, with one more block reserved, for the caller to sign and commit.

        ReservationNeeded: the key has sealed all it may; no block is left, and it has to be replaced.
        """
        reserved = record.seals_reserved + self._settings.seals_block
        if reserved > self._settings.seals_max:
            raise _needed(record.id, f"data key {record.id!r} has no seals left; rotate its keyring")
        return msgspec.structs.replace(record, rev=record.rev + 1, seals_reserved=reserved, mac=b"")

    def credit(self, data_key: str) -> None:
        """A proposed block was committed: spend from it."""
        self._left[data_key] = self._left.get(data_key, 0) + self._settings.seals_block

    def spend(self, data_key: str) -> None:
        """Count one seal, before it is made. ReservationNeeded: the block is used up, or none was ever reserved."""
        left = self._left.get(data_key, 0)
        if left <= 0:
            self._left.pop(data_key, None)
            raise _needed(data_key, f"no seals are set aside for data key {data_key!r}; reserve a block and try again")
        self._left[data_key] = left - 1


def _needed(data_key: str, text: str) -> ReservationNeeded:
    error = ReservationNeeded(text, retry_after_s=0.1)
    error.data_key = data_key
    return error
