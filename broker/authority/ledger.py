"""One authority table as this replica knows it: rows, tally and manifest, which always fit each other.

Pure: a step is worked out first, and taken only when it is known to be durable or verified. Waiting, reading and
writing live in `follow` and `authority`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from broker.authority.errors import NAMED_MAX, TableAltered, TableRolledBack, key_name, row_name
from broker.authority.manifest import SetDigest, Tally
from broker.authority.rowmac import RowMac, mac_of
from broker.errors import Conflict
from storage.port import Delete
from storage.records import ManifestRecord
from storage.table import Key, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """From one state of a table to another. `put`: rows as they are afterwards. `gone`: keys that end."""

    put: Mapping[Key, Record]
    gone: frozenset[Key]
    tally: Tally
    manifest: ManifestRecord

    @property
    def keys(self) -> frozenset[Key]:
        """Every key that this step alters."""
        return self.gone.union(self.put)


class Ledger:
    """The verified state of one authority table. At first: no rows, and a manifest of revision 0 that pins nothing."""

    __slots__ = ("_digest", "_mac", "generation", "kind", "manifest", "rows", "tally")

    def __init__(self, *, kind: type[Record], mac: RowMac, digest: SetDigest) -> None:
        self.kind = kind
        self._mac = mac
        self._digest = digest
        self.rows: dict[Key, Record] = {}
        self.tally = Tally()
        self.manifest = ManifestRecord(kind=kind.table.name, rev=0, count=0, digest=b"")
        self.generation = 0

    def blank(self) -> Ledger:
        """A ledger of the same table that knows nothing yet."""
        return Ledger(kind=self.kind, mac=self._mac, digest=self._digest)

    def plan(self, *, inserts: Collection[Record], updates: Collection[Record], deletes: Collection[Delete]) -> Step:
        """The step that these signed rows make, with the signed manifest that goes with them.

        Conflict: a key to insert is known, or a row to update or delete is absent or at another revision.
        """
        for record in (*inserts, *updates):
            self._expect(record.key, record.rev - 1)
        for delete in deletes:
            self._expect(delete.key, delete.rev)
        put = {record.key: record for record in (*inserts, *updates)}
        gone = frozenset(delete.key for delete in deletes)
        tally = self._tally(put, gone)
        manifest = msgspec.structs.replace(
            self.manifest, rev=self.manifest.rev + 1, count=tally.count, digest=self._digest.digest(tally), mac=b""
        )
        return Step(put=put, gone=gone, tally=tally, manifest=self._mac.sign(manifest))

    def match(self, manifest: ManifestRecord, keys: Collection[Key], found: Mapping[Key, Record]) -> Step:
        """The step to what storage holds: `found` are all rows there are among `keys`, verified; `manifest` likewise.

        Rows need no rule of their own against going back: the manifest names one exact set, and never goes back.
        TableRolledBack: the manifest is older than the one known, or another one of the same revision.
        TableAltered: the rows known, with these changes, are not the set that the manifest pins.
        """
        self._expect_forward(manifest)
        put = {key: row for key, row in found.items() if self.rows.get(key) != row}
        gone = frozenset(key for key in keys if key not in found and key in self.rows)
        tally = self._tally(put, gone)
        if tally.count != manifest.count or self._digest.digest(tally) != manifest.digest:
            raise self._altered(manifest, tally.count, gone.union(put))
        return Step(put=put, gone=gone, tally=tally, manifest=manifest)

    def take(self, step: Step) -> None:
        """Make the step. It must come from `plan` or `match` of this ledger, with no other step taken between."""
        for key in step.gone:
            del self.rows[key]
        self.rows.update(step.put)
        self.tally = step.tally
        self.manifest = step.manifest
        self.generation += bool(step.put or step.gone)

    def adopt(self, other: Ledger) -> frozenset[Key]:
        """Become equal to another verified ledger of this table; the keys whose rows differ from before.

        TableRolledBack: the other one's manifest is older.
        """
        self._expect_forward(other.manifest)
        put = {key: row for key, row in other.rows.items() if self.rows.get(key) != row}
        step = Step(
            put=put, gone=frozenset(self.rows.keys() - other.rows.keys()), tally=other.tally, manifest=other.manifest
        )
        self.take(step)
        return step.keys

    def assume(self, row: Record) -> None:
        """Add a row, verified by itself, while reading a whole table; `match` then judges the set.

        TableAltered: the table held this key already.
        """
        if row.key in self.rows:
            table = self.kind.table.name
            raise TableAltered(
                f"{row_name(table, row.key)} is stored twice; compare with a backup", table=table, keys=[row.key]
            )
        self.rows[row.key] = row
        self.tally = self._digest.add(self.tally, mac_of(row))

    def _tally(self, put: Mapping[Key, Record], gone: Collection[Key]) -> Tally:
        tally = self.tally
        for key in (*put, *gone):
            if (known := self.rows.get(key)) is not None:
                tally = self._digest.remove(tally, mac_of(known))
        for row in put.values():
            tally = self._digest.add(tally, mac_of(row))
        return tally

    def _expect(self, key: Key, rev: int) -> None:
        known = self.rows.get(key)
        if (known.rev if known is not None else 0) != rev:
            name = row_name(self.kind.table.name, key)
            raise Conflict(
                f"{name} exists already; choose another name, or read and update it"
                if rev == 0
                else f"{name} is {'gone' if known is None else f'at revision {known.rev}'}, not at revision {rev}; "
                "read it again and retry"
            )

    def _expect_forward(self, manifest: ManifestRecord) -> None:
        known, table = self.manifest, self.kind.table.name
        if manifest.rev < known.rev or (manifest.rev == known.rev and manifest != known):
            raise TableRolledBack(
                f"the manifest of table {table} is {'at' if manifest.rev < known.rev else 'another one of'} revision "
                f"{manifest.rev}, this replica verified revision {known.rev}: another state was put in its place; "
                "compare with a backup and the audit log",
                table=table,
            )

    def _altered(self, manifest: ManifestRecord, count: int, suspects: Collection[Key]) -> TableAltered:
        table = self.kind.table.name
        text = (
            f"table {table} is not what its manifest pins at revision {manifest.rev}: {manifest.count} rows are signed "
            f"for, {count} are there"
        )
        if self.manifest.rev == 0:
            suspects = ()  # nothing was verified before, so nothing tells the wrong rows from the right ones
        elif suspects:
            named = ", ".join(key_name(key) for key in sorted(suspects, key=str)[:NAMED_MAX])
            text += f"; {len(suspects)} rows differ from what this replica verified, among them {named}"
        return TableAltered(f"{text}; compare with a backup and the audit log", table=table, keys=suspects)
