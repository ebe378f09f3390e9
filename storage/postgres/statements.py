"""The SQL of one record type, derived from its codec. Running it is `writer`'s and `storage`'s business.

Whatever the number of rows, a statement has one array for each column: one text, prepared once on each connection.
"""
# ruff: noqa: S608 - identifiers come from record types and are quoted; every value is a bound parameter

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storage.codec import Cell, Codec, Row
from storage.postgres.cells import stored
from storage.postgres.schema import ARRAYS, qualified, quote, quoted
from storage.table import Key, Record


class Statements:
    """SQL for one record type."""

    def __init__(self, codec: Codec[Any]) -> None:
        self.codec = codec
        self._name = qualified(codec.table.name)
        self._columns = quoted(codec.names)
        self._key = quoted(codec.table.key)
        key = codec.table.key
        arrays = ", ".join(f"${n}::{ARRAYS[codec.column(name).affinity]}" for n, name in enumerate(key, 1))
        match = " AND ".join(f"t.{quote(name)} = v.{quote(name)}" for name in key)
        columns = ", ".join(f"t.{quote(name)}" for name in codec.names)
        self.get = f"SELECT {self._columns} FROM {self._name} WHERE " + " AND ".join(
            f"{quote(name)} = ${n}" for n, name in enumerate(key, 1)
        )
        self.get_many = (
            f"SELECT {columns} FROM (SELECT DISTINCT * FROM unnest({arrays}) AS u({self._key})) AS v "
            f"JOIN {self._name} AS t ON {match}"
        )
        self.nothing = f"SELECT {self._columns} FROM {self._name} LIMIT 0"

    def insert(self, numbers: Iterator[int]) -> str:
        """Insert rows; parameters, numbered from `numbers`: an array for each column."""
        return f"INSERT INTO {self._name} ({self._columns}) SELECT * FROM {self._arrays(self.codec.names, numbers)}"

    def update(self, codec: Codec[Any], numbers: Iterator[int]) -> str:
        """Replace the codec's columns of rows where the stored revision is one less than the new; parameters, numbered
        from `numbers`: an array for each of those columns.
        """
        key = codec.table.key
        assign = ", ".join(f"{quote(name)} = v.{quote(name)}" for name in codec.names if name not in key)
        match = " AND ".join(f"t.{quote(name)} = v.{quote(name)}" for name in key)
        rows = self._arrays(codec.names, numbers)
        return f'UPDATE {self._name} AS t SET {assign} FROM {rows} WHERE {match} AND t."rev" = v."rev" - 1'

    def delete(self, numbers: Iterator[int]) -> str:
        """Delete rows of these keys and revisions; parameters: an array for each column of the key, then `rev`."""
        names = (*self.codec.table.key, "rev")
        match = " AND ".join(f"t.{quote(name)} = v.{quote(name)}" for name in names)
        return f"DELETE FROM {self._name} AS t USING {self._arrays(names, numbers)} WHERE {match}"

    def expect(self, numbers: Iterator[int]) -> str:
        """Rows of these keys and revisions, kept from changing until the commit has ended; parameters as `delete`."""
        names = (*self.codec.table.key, "rev")
        match = " AND ".join(f"t.{quote(name)} = v.{quote(name)}" for name in names)
        return f"SELECT 1 FROM {self._name} AS t JOIN {self._arrays(names, numbers)} ON {match} FOR SHARE OF t"

    def count(self, *, index: str, prefix: Key) -> str:
        """How many rows equal the prefix; parameters: its cells, the most to count. KeyError: no such index."""
        order = self.codec.table.order(index)
        if len(prefix) > len(order):
            raise KeyError(f"index {index!r} of table {self.codec.table.name!r} orders by {order}")
        where = " AND ".join(f"{quote(name)} = ${n}" for n, name in enumerate(order[: len(prefix)], 1)) or "true"
        return f"SELECT count(*) FROM (SELECT 1 FROM {self._name} WHERE {where} LIMIT ${len(prefix) + 1}) AS counted"

    def due(self, column: str) -> str:
        """Rows due at or before an instant, earliest first; parameters: the instant, the limit."""
        name = quote(self.codec.due_column(column))
        return f"SELECT {self._columns} FROM {self._name} WHERE {name} <= $1 ORDER BY {name}, {self._key} LIMIT $2"

    def prune(self, column: str) -> str:
        """Delete rows due before an instant, earliest first; parameters: the instant, the limit.

        Rows that another replica is pruning or writing are left to it.
        """
        name = quote(self.codec.due_column(column))
        doomed = f"SELECT {self._key} FROM {self._name} WHERE {name} < $1 ORDER BY {name}, {self._key} LIMIT $2"
        return f"DELETE FROM {self._name} WHERE ({self._key}) IN ({doomed} FOR UPDATE SKIP LOCKED)"

    def select(
        self,
        *,
        index: str,
        prefix: Key,
        where: Mapping[str, str | int | None],
        after: Key | None,
        descending: bool,
        limit: int,
    ) -> tuple[str, list[Cell]]:
        """One page's SQL and parameters. KeyError: no such index or column."""
        order = self.codec.table.order(index)
        if len(prefix) > len(order) or (after is not None and not 0 < len(after) <= len(order)):
            raise KeyError(f"index {index!r} of table {self.codec.table.name!r} orders by {order}")
        conditions: list[str] = []
        parameters: list[Cell] = []

        def bound(cell: Cell) -> str:
            parameters.append(stored(cell))
            return f"${len(parameters)}"

        conditions += [f"{quote(name)} = {bound(cell)}" for name, cell in zip(order, prefix, strict=False)]
        for name, value in where.items():
            self.codec.column(name)
            conditions.append(f"{quote(name)} IS NULL" if value is None else f"{quote(name)} = {bound(value)}")
        if after is not None:
            # Columns that the prefix pins already would keep the planner from seeking to the start.
            skip = len(prefix) if after[: len(prefix)] == prefix and len(after) > len(prefix) else 0
            behind = order[skip : len(after)]
            sign = "<" if descending else ">"
            conditions.append(f"({quoted(behind)}) {sign} ({', '.join(bound(cell) for cell in after[skip:])})")
        sql = f"SELECT {self._columns} FROM {self._name}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        direction = " DESC" if descending else ""
        sql += " ORDER BY " + ", ".join(quote(name) + direction for name in order) + f" LIMIT {bound(limit)}"
        return sql, parameters

    def order_of(self, row: Row, index: str) -> Key:
        """The row's cells in the index's columns: what a following page takes as `after`."""
        names = self.codec.names
        cells = [row[names.index(name)] for name in self.codec.table.order(index)]
        return tuple(cell for cell in cells if isinstance(cell, (str, int)))

    def _arrays(self, names: Sequence[str], numbers: Iterator[int]) -> str:
        arrays = ", ".join(f"${next(numbers)}::{ARRAYS[self.codec.column(name).affinity]}" for name in names)
        return f"unnest({arrays}) AS v({quoted(names)})"


Catalog = Mapping[type[Record], Statements]
