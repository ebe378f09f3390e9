"""The SQL of one record type, derived from its codec. Running it is `writer`'s and `reader`'s business.

Python's sqlite3 gives up the interpreter lock around every step of a statement and has to win it back from the event
loop, so what counts is the number of steps: rows go in batches, one statement and one step each. A batch has a power of
two rows, so that few statement texts exist and SQLite's prepared ones are found again.
"""
# ruff: noqa: S608 - identifiers come from record types and are quoted; every value is a bound parameter

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from storage.codec import Cell, Codec, Row
from storage.sqlite.schema import quote, quoted
from storage.table import Key, Record

BATCH_MAX = 128
"""Most rows of one statement; with the widest table that is far below SQLite's least limit of 32 766 variables."""


def batches(count: int, most: int = BATCH_MAX) -> Iterator[tuple[int, int]]:
    """(start, size) of the batches that cover `count` rows: the largest power of two that fits, at most `most`."""
    start = 0
    while start < count:
        size = min(most, 1 << ((count - start).bit_length() - 1))
        yield start, size
        start += size


class Statements:
    """SQL for one record type. Texts are made once and kept, so that their hash is computed once too."""

    def __init__(self, codec: Codec[Any]) -> None:
        self.codec = codec
        self._name = quote(codec.table.name)
        self._columns = quoted(codec.names)
        self._key = quoted(codec.table.key)
        self._inserts: dict[tuple[int, int], str] = {}
        self._updates: dict[tuple[Codec[Any], int], str] = {}
        self.delete = f"DELETE FROM {self._name} WHERE {_equal((*codec.table.key, 'rev'))}"
        self.expect = f"SELECT 1 FROM {self._name} WHERE {_equal((*codec.table.key, 'rev'))}"
        self.nothing = f"SELECT {self._columns} FROM {self._name} LIMIT 0"

    def insert(self, rows: int, cells: int) -> str:
        """Insert so many rows; parameters: the first `cells` of each, row after row. The others have their defaults.

        Binding is what costs most, above all None, which Python's sqlite3 offers to its adapters each time.
        """
        sql = self._inserts.get((rows, cells))
        if sql is None:
            names, defaults = self.codec.names, self.codec.defaults
            unsaid = defaults[len(defaults) - (len(names) - cells) :]
            row = "(" + ",".join([*"?" * cells, *map(_literal, unsaid)]) + ")"
            sql = f"INSERT INTO {self._name} ({self._columns}) VALUES {','.join([row] * rows)}"
            self._inserts[rows, cells] = sql
        return sql

    def update(self, codec: Codec[Any], rows: int) -> str:
        """Replace the codec's columns of so many rows where the stored revision is one less than the new; parameters:
        its cells, row after row.

        The cursor's row count is how many matched. A key that occurs twice counts once. What is not written costs
        nothing: an index of it stays as it is.
        """
        sql = self._updates.get((codec, rows))
        if sql is None:
            sql = self._updates[codec, rows] = self._update(codec, rows)
        return sql

    def get(self, keys: int) -> str:
        """The rows of so many keys; parameters: the keys' cells, key after key. A key that occurs twice comes twice."""
        key = self.codec.table.key
        if keys == 1:
            return f"SELECT {self._columns} FROM {self._name} WHERE {_equal(key)}"
        # CROSS JOIN fixes the order of the loops: one descent per key, never a scan of the table.
        columns = ", ".join(f"t.{quote(name)}" for name in self.codec.names)
        match = " AND ".join(f"t.{quote(name)} = v.column{n}" for n, name in enumerate(key, 1))
        values = _values(keys, len(key))
        return f"SELECT {columns} FROM (VALUES {values}) AS v CROSS JOIN {self._name} AS t ON {match}"

    def due(self, column: str) -> str:
        """Rows due at or before an instant, earliest first; parameters: the instant, the limit."""
        name = quote(self.codec.due_column(column))
        order = f"ORDER BY {name}, {self._key}"
        return f"SELECT {self._columns} FROM {self._name} WHERE {name} <= ? {order} LIMIT ?"

    def prune(self, column: str) -> str:
        """Delete rows due before an instant, earliest first; parameters: the instant, the limit."""
        name = quote(self.codec.due_column(column))
        doomed = f"SELECT {self._key} FROM {self._name} WHERE {name} < ? ORDER BY {name}, {self._key} LIMIT ?"
        return f"DELETE FROM {self._name} WHERE ({self._key}) IN ({doomed})"

    def select(
        self,
        *,
        index: str,
        prefix: Key,
        where: Mapping[str, str | int | None],
        after: Key | None,
        descending: bool,
    ) -> tuple[str, list[Cell]]:
        """One page's SQL and parameters, but for the limit, which comes last. KeyError: no such index or column."""
        order = self.codec.table.order(index)
        if len(prefix) > len(order) or (after is not None and not 0 < len(after) <= len(order)):
            raise KeyError(f"index {index!r} of table {self.codec.table.name!r} orders by {order}")
        conditions = [f"{quote(name)} = ?" for name in order[: len(prefix)]]
        parameters: list[Cell] = list(prefix)
        for name, value in where.items():
            self.codec.column(name)
            conditions.append(f"{quote(name)} IS ?")
            parameters.append(value)
        if after is not None:
            # Columns that the prefix pins already would keep SQLite from seeking to the start.
            skip = len(prefix) if after[: len(prefix)] == prefix and len(after) > len(prefix) else 0
            behind = order[skip : len(after)]
            sign = "<" if descending else ">"
            conditions.append(f"({quoted(behind)}) {sign} ({', '.join('?' * len(behind))})")
            parameters.extend(after[skip:])
        sql = f"SELECT {self._columns} FROM {self._name}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        direction = " DESC" if descending else ""
        sql += " ORDER BY " + ", ".join(quote(name) + direction for name in order) + " LIMIT ?"
        return sql, parameters

    def count(self, *, index: str, prefix: Key) -> str:
        """How many rows equal the prefix; parameters: its cells, the most to count. KeyError: no such index."""
        order = self.codec.table.order(index)
        if len(prefix) > len(order):
            raise KeyError(f"index {index!r} of table {self.codec.table.name!r} orders by {order}")
        where = f" WHERE {_equal(order[: len(prefix)])}" if prefix else ""
        return f"SELECT count(*) FROM (SELECT 1 FROM {self._name}{where} LIMIT ?)"

    def order_of(self, row: Row, index: str) -> Key:
        """The row's cells in the index's columns: what a following page takes as `after`."""
        names = self.codec.names
        cells = [row[names.index(name)] for name in self.codec.table.order(index)]
        return tuple(cell for cell in cells if isinstance(cell, (str, int)))

    def _update(self, codec: Codec[Any], rows: int) -> str:
        names, key = codec.names, codec.table.key
        changing = [name for name in names if name not in key]
        if rows == 1:
            # UPDATE ... FROM a single row costs more than naming it; numbered parameters keep the order of cells.
            at = {name: f"?{n}" for n, name in enumerate(names, 1)}
            assign = ", ".join(f"{quote(name)} = {at[name]}" for name in changing)
            match = " AND ".join(f"{quote(name)} = {at[name]}" for name in key)
            return f'UPDATE {self._name} SET {assign} WHERE {match} AND "rev" = {at["rev"]} - 1'
        at = {name: f"v.column{n}" for n, name in enumerate(names, 1)}
        assign = ", ".join(f"{quote(name)} = {at[name]}" for name in changing)
        match = " AND ".join(f"t.{quote(name)} = {at[name]}" for name in key)
        values = _values(rows, len(names))
        return (
            f"UPDATE {self._name} AS t SET {assign} FROM (VALUES {values}) AS v "
            f'WHERE {match} AND t."rev" = {at["rev"]} - 1'
        )


Catalog = Mapping[type[Record], Statements]


def flat(rows: Sequence[Row]) -> list[Cell]:
    """The cells of all rows, one after another."""
    return list(chain.from_iterable(rows))


@cache
def _values(rows: int, columns: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return ",".join([row] * rows)


def _literal(cell: Cell) -> str:
    """A default as SQL."""
    if cell is None:
        return "NULL"
    if isinstance(cell, str):
        return "'" + cell.replace("'", "''") + "'"
    return f"X'{cell.hex()}'" if isinstance(cell, bytes) else repr(cell)


def _equal(names: Sequence[str]) -> str:
    return " AND ".join(f"{quote(name)} = ?" for name in names)
