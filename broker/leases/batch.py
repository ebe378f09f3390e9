"""One batch: the instant it is decided at, what it will write, and the values it has opened for that time only."""

from __future__ import annotations

from datetime import datetime

from broker.audit.entries import Entry
from broker.ids import time_ordered_ids
from broker.leases.context import Context
from broker.leases.held import Holder
from broker.leases.operation import Missing, Operation
from storage.records import LeaseRecord, VersionRecord
from storage.table import Key
from tokenbroker_client.wire import Encoding, encode_value

Opened = tuple[str, Encoding]


class Batch:
    """Decided operations and what they write. `close` lets go of every opened value."""

    __slots__ = (
        "_opened",
        "announce",
        "context",
        "entries",
        "ids",
        "inserts",
        "mono",
        "now",
        "operations",
        "touched",
        "updates",
    )

    def __init__(self, *, context: Context, now: datetime, mono: float, size: int) -> None:
        """size: how many operations may be decided in it, and so how many lease ids it needs at most."""
        self.context = context
        self.now = now
        self.ids = time_ordered_ids(now, size)
        self.mono = mono
        self.operations: list[Operation] = []
        self.touched: set[str] = set()
        self.inserts: list[LeaseRecord] = []
        self.updates: list[LeaseRecord] = []
        self.entries: list[Entry] = []
        self.announce: list[tuple[str, Key]] = []
        self._opened: dict[tuple[str, int], Opened] = {}

    def open(self, version: VersionRecord, holder: Holder) -> Opened:
        """The value as the wire carries it. One decryption serves the whole batch, unless the KMS decides per worker.

        Raises Missing when the data key is not in memory, and what the vault raises.
        """
        context = self.context
        keyring = context.keyrings.get((version.keyring,))
        shared = keyring is not None and keyring.authorize == "broker"
        name = (version.token, version.version)
        if shared and name in self._opened:
            return self._opened[name]
        secret = context.vault.try_open(version, holder.caller)
        if secret is None:
            raise Missing(sealed=(version, holder.caller))
        opened = encode_value(secret.reveal())
        secret.wipe()
        if shared:
            self._opened[name] = opened
        return opened

    def close(self) -> None:
        """Forget opened values."""
        self._opened.clear()
