"""One table in memory: rows by key, and a sorted list for every declared order. Atomicity is `state`'s business."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from typing import Any

from storage.codec import Affinity, Cell, Codec, Row
from storage.errors import OutOfBounds
from storage.table import Key

Entry = tuple[tuple[Any, ...], Key]
"""A row's cells in an order's columns, and its key."""

_INT64 = range(-(2**63), 2**63)


class Shelf:
    """The rows of one record type. Rows, not records: what a caller keeps and changes is not what is kept here."""

    def __init__(self, codec: Codec[Any]) -> None:
        self.codec = codec
        self.rows: dict[Key, Row] = {}
        table = codec.table
        self._columns = {name: table.order(name) for name in ("key", *table.indexes)}
        self._due_columns = {name: (name, *table.key) for name in table.due}
        self._at = {
            columns: tuple(codec.names.index(name) for name in columns)
            for columns in (*self._columns.values(), *self._due_columns.values())
        }
        self._orders: dict[tuple[str, ...], list[Entry]] = {columns: [] for columns in self._at}

    def rev(self, key: Key) -> Cell:
        """The stored revision, None where no record is."""
        row = self.rows.get(key)
        return None if row is None else row[self.codec.rev_at]

    def put(self, row: Row) -> None:
        """Insert the row, or replace the one of its key."""
        key = self.codec.key_of(row)
        self.drop(key)
        self.rows[key] = row
        for columns, order in self._orders.items():
            entry = self._entry(columns, row, key)
            if entry[0][0] is not None:
                insort(order, entry)

    def drop(self, key: Key) -> None:
        """Remove the row of that key, if there is one."""
        row = self.rows.pop(key, None)
        if row is None:
            return
        for columns, order in self._orders.items():
            entry = self._entry(columns, row, key)
            if entry[0][0] is not None:
                del order[bisect_left(order, entry)]

    def walk(
        self,
        index: str,
        *,
        prefix: Key,
        where: Mapping[str, str | int | None],
        after: Key | None,
        descending: bool,
    ) -> Iterator[Row]:
        """Rows in an index's order. KeyError: no such index or column."""
        columns = self.codec.table.order(index)
        if len(prefix) > len(columns) or (after is not None and not 0 < len(after) <= len(columns)):
            raise KeyError(f"index {index!r} of table {self.codec.table.name!r} orders by {columns}")
        order = self._orders[columns]
        first = bisect_left(order, prefix, key=lambda entry: entry[0][: len(prefix)])
        last = bisect_right(order, prefix, key=lambda entry: entry[0][: len(prefix)])
        if after is not None and descending:
            last = min(last, bisect_left(order, after, key=lambda entry: entry[0][: len(after)]))
        elif after is not None:
            first = max(first, bisect_right(order, after, key=lambda entry: entry[0][: len(after)]))
        wanted = [(self.codec.names.index(self.codec.column(name).name), value) for name, value in where.items()]
        for at in reversed(range(first, last)) if descending else range(first, last):
            row = self.rows[order[at][1]]
            if all(row[cell] == value for cell, value in wanted):
                yield row

    def order_of(self, row: Row, index: str) -> Key:
        """The row's cells in an index's columns."""
        cells: Key = self._entry(self._columns[index], row, ())[0]
        return cells

    def due(self, column: str, micros: int) -> Iterator[Row]:
        """Rows due before the instant, earliest first. KeyError: no such due column."""
        order = self._orders[self._due_columns[self.codec.due_column(column)]]
        for at in range(bisect_left(order, ((micros,),))):
            yield self.rows[order[at][1]]

    def check(self, row: Row) -> Row:
        """The row, if a database could hold it. OutOfBounds: an integer over 64 bits, a lone surrogate, a None, ..."""
        for column, cell in zip(self.codec.columns, row, strict=True):
            if not (column.nullable if cell is None else _holds(column.affinity, cell)):
                raise OutOfBounds(f"column {column.name!r} of table {self.codec.table.name!r} cannot hold a value")
        return row

    def _entry(self, columns: tuple[str, ...], row: Row, key: Key) -> Entry:
        return tuple([row[at] for at in self._at[columns]]), key


def _holds(affinity: Affinity, cell: Cell) -> bool:
    match affinity:
        case Affinity.TEXT:
            return isinstance(cell, str) and not any("\ud800" <= sign <= "\udfff" for sign in cell)
        case Affinity.INTEGER:
            return isinstance(cell, int) and cell in _INT64
        case Affinity.REAL:
            return isinstance(cell, (int, float)) and cell == cell  # noqa: PLR0124 - false for NaN, which SQL has not
        case Affinity.BLOB:
            return isinstance(cell, bytes)
