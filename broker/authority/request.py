"""One change on its way to the journal: its rows signed, sorted by table, with what the feed shall announce.

Which revisions are right is judged in `ledger`; when and how often to try, in `authority`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from broker.audit.entries import Entry
from broker.authority.ledger import Ledger, Step
from broker.authority.rowmac import MACED, RowMac
from storage.port import Committed, Delete, Expect
from storage.records import AUTHORITY, ManifestRecord, TokenRecord
from storage.table import Key, Record

_ANNOUNCED: Final = frozenset({*AUTHORITY, TokenRecord})


class Writer(Protocol):
    """What makes a change durable, together with the audit entries that describe it: the journal."""

    async def commit(
        self,
        entries: Sequence[Entry],
        *,
        inserts: Sequence[Record] = (),
        updates: Sequence[Record] = (),
        deletes: Sequence[Delete] = (),
        expects: Sequence[Expect] = (),
        announce: Sequence[tuple[str, Key]] = (),
    ) -> Committed:
        """Make all of it durable, or nothing.

        Conflict: a key existed, or a revision was another. Unavailable: not durable in time; it may still become so.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A change with its rows signed. Make it with `signed`."""

    entries: Sequence[Entry]
    inserts: Sequence[Record]
    updates: Sequence[Record]
    deletes: Sequence[Delete]
    expects: Sequence[Expect]
    announce: Sequence[tuple[str, Key]]

    @property
    def kinds(self) -> frozenset[type[Record]]:
        """The authority tables that it changes."""
        written = {type(record) for record in (*self.inserts, *self.updates)}
        return frozenset(written.union(delete.kind for delete in self.deletes).intersection(AUTHORITY))

    @property
    def relied_on(self) -> frozenset[type[Record]]:
        """The authority tables that it relies on."""
        return frozenset(expect.kind for expect in self.expects).intersection(AUTHORITY)

    def keys(self, kind: type[Record]) -> set[Key]:
        """The keys of its rows in one table, and of those it relies on."""
        rows = {record.key for record in (*self.inserts, *self.updates) if type(record) is kind}
        rows.update(delete.key for delete in self.deletes if delete.kind is kind)
        return rows.union(expect.key for expect in self.expects if expect.kind is kind)

    def step(self, ledger: Ledger) -> Step:
        """What it does to one table. Conflict: it does not fit the rows that the ledger knows."""
        return ledger.plan(
            inserts=[record for record in self.inserts if type(record) is ledger.kind],
            updates=[record for record in self.updates if type(record) is ledger.kind],
            deletes=[delete for delete in self.deletes if delete.kind is ledger.kind],
        )

    async def write(self, writer: Writer, steps: Mapping[type[Record], Step]) -> Committed:
        """Write it together with the manifests of these steps. Raises what `Writer.commit` does."""
        return await writer.commit(
            self.entries,
            inserts=self.inserts,
            updates=[*self.updates, *(step.manifest for step in steps.values())],
            deletes=self.deletes,
            expects=self.expects,
            announce=self.announce,
        )


def signed(
    *,
    mac: RowMac,
    entries: Sequence[Entry],
    inserts: Sequence[Record],
    updates: Sequence[Record],
    deletes: Sequence[Delete],
    expects: Sequence[Expect],
    announce: Sequence[tuple[str, Key]],
) -> Request:
    """The request with every row signed that carries a MAC; others pass as they are.

    ValueError: a manifest among the rows (only `Ledger.plan` makes those), one row twice, or a row that storage would
    give back otherwise (`RowMac.sign`).
    """
    rows = [(type(record), record.key) for record in (*inserts, *updates)]
    rows += [(delete.kind, delete.key) for delete in deletes]
    if len(set(rows)) != len(rows):
        raise ValueError("one commit changes a row at most once")
    if any(kind is ManifestRecord for kind, _ in rows):
        raise ValueError("manifests follow from the rows; nobody commits them by hand")
    changed = [(kind.table.name, key) for kind, key in rows if kind in _ANNOUNCED]
    return Request(
        entries=entries,
        inserts=[_signed(mac, record) for record in inserts],
        updates=[_signed(mac, record) for record in updates],
        deletes=deletes,
        expects=expects,
        announce=list(dict.fromkeys([*announce, *changed])),
    )


def _signed(mac: RowMac, record: Record) -> Record:
    return mac.sign(record) if type(record) in MACED else record
