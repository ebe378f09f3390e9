"""One batch: the instant it is decided at, what it will write, and the values it has opened for that time only."""

from __future__ import annotations

from datetime import datetime

from broker.audit.entries import Entry
from broker.ids import time_ordered_ids
from broker.leases.context import Context
from broker.leases.held import Holder, Place
from broker.leases.operation import Missing, Operation
from broker.leases.terms import Terms, first_terms, next_terms
from broker.vault.vault import Opener
from storage.port import Amended, Delete
from storage.records import GrantRecord, IssuedRecord, LeaseRecord, VersionRecord, WorkerRecord
from storage.table import Key, Record
from tokenbroker_client.wire import Encoding, encode_value

Opened = tuple[str, Encoding]


class Batch:
    """Decided operations and what they write. `close` lets go of every opened value."""

    __slots__ = (
        "_openers",
        "_standing",
        "_terms",
        "amended",
        "announce",
        "context",
        "deletes",
        "entries",
        "fresh",
        "ids",
        "inserts",
        "issued",
        "mono",
        "now",
        "operations",
        "rows",
        "touched",
        "trouble",
        "updates",
    )

    def __init__(self, *, context: Context, now: datetime, mono: float, size: int, trouble: str) -> None:
        """size: how many operations may be decided in it, and so how many lease ids it needs at most.

        trouble: why no value may leave now, or "". rows: what is written beside leases, inserted at revision 1.
        touched: by what decided operations touch, the one decided last; None where one that waits touches it.
        """
        self.context = context
        self.trouble = trouble
        self.now = now
        self.ids = time_ordered_ids(now, size)
        self.mono = mono
        self.operations: list[Operation] = []
        self.touched: dict[str, Operation | None] = {}
        self.inserts: list[LeaseRecord] = []
        self.updates: list[LeaseRecord] = []
        self.amended: list[Amended] = []
        self.issued: list[IssuedRecord] = []
        self.rows: list[Record] = []
        self.deletes: list[Delete] = []
        self.entries: list[Entry] = []
        self.fresh: dict[Holder, int] = {}
        self.announce: list[tuple[str, Key]] = []
        self._standing: dict[Holder, WorkerRecord] = {}
        self._terms: dict[tuple[object, ...], Terms] = {}
        self._openers: dict[tuple[str, str], tuple[Opener, dict[tuple[str, int], Opened]]] = {}

    def open(self, version: VersionRecord, holder: Holder) -> Opened:
        """The value as the wire carries it.

        One look at the key cache and one decryption of a version serve the whole batch, which is decided at one
        instant, unless the KMS decides per worker. Raises Missing when the data key is not in memory, and what the
        vault raises.
        """
        opener, opened = self._openers.get((version.data_key, version.keyring)) or self._opener(version, holder)
        name = (version.token, version.version)
        value = opened.get(name)
        if value is None:
            value = opened[name] = encode_value(opener.reveal(version))
        return value

    def _opener(self, version: VersionRecord, holder: Holder) -> tuple[Opener, dict[tuple[str, int], Opened]]:
        """What opens this version, with the values that it has opened; kept where it may serve everybody."""
        opener = self.context.vault.opener(version.data_key, version.keyring, holder.caller)
        if opener is None:
            raise Missing(sealed=(version, holder.caller))
        found: tuple[Opener, dict[tuple[str, int], Opened]] = (opener, {})
        if self._for_all(version.keyring):
            self._openers[version.data_key, version.keyring] = found
        return found

    def authorise(self, holder: Holder, place: Place) -> tuple[GrantRecord, WorkerRecord]:
        """As `Context.authorise` at the instant of this batch, for which it looks at each session's worker once."""
        worker = self._standing.get(holder)
        if worker is None:
            worker = self._standing[holder] = self.context.standing(holder, self.now)
        return self.context.covering(holder, place, self.now), worker

    def first_terms(self, grant: GrantRecord, worker: WorkerRecord, asked_s: float | None) -> Terms:
        """The terms of a lease granted now; worked out once for all that have the same grant, end and wish."""
        wish = (grant.id, worker.expires_at, asked_s)
        terms = self._terms.get(wish)
        if terms is None:
            terms = self._terms[wish] = first_terms(grant, worker, self.now, asked_s)
        return terms

    def next_terms(self, record: LeaseRecord, grant: GrantRecord, worker: WorkerRecord, asked_s: float | None) -> Terms:
        """The terms of a live lease that is asked for again; worked out once for all that are alike in what counts."""
        wish = (grant.id, worker.expires_at, asked_s, record.granted_at, record.expires_at, record.max_expires_at)
        terms = self._terms.get(wish)
        if terms is None:
            ttl_s = min(asked_s or grant.ttl_s, grant.max_ttl_s)
            terms = next_terms(record, grant=grant, worker=worker, now=self.now, ttl_s=ttl_s)
            self._terms[wish] = terms
        return terms

    def _for_all(self, keyring: str) -> bool:
        """Whether what opens for one worker opens for all that have a grant: the KMS does not decide per worker."""
        row = self.context.keyrings.get((keyring,))
        return row is not None and row.authorize == "broker"

    def close(self) -> None:
        """Forget opened values."""
        for _, opened in self._openers.values():
            opened.clear()
        self._openers.clear()
