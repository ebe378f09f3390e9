"""How a record type says where it lives: one declaration, from which every adapter derives schema and SQL.

A record is a frozen `msgspec.Struct` with a class variable `table`. Its fields are columns. What a field may be:
`str`, `int`, `float`, `bool`, `bytes`, an aware UTC `datetime` (kept to the microsecond), any of these or None,
and, kept as JSON, tuples and further frozen structs. Adapters hold no knowledge of any single record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import msgspec

Key = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Where a record lives.

    key: the columns that identify a record; also the order of the index named "key".
    indexes: further orders, name → columns. The key's columns follow them, so every order is total.
    due: nullable instant columns that `Storage.due` and `Storage.prune` may ask about; None means never.
    """

    name: str
    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    due: tuple[str, ...] = ()

    def order(self, index: str) -> tuple[str, ...]:
        """The columns that order `index`, key columns last. KeyError: no such index is declared."""
        if index == "key":
            return self.key
        columns = self.indexes[index]
        return columns + tuple(name for name in self.key if name not in columns)


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What storage remembers. `rev` is 1 when inserted and one more at every update: the compare-and-set.

    The garbage collector passes records over: one is made of values that were there before it, so it is in no cycle.
    """

    table: ClassVar[Table]

    rev: int = 1

    @property
    def key(self) -> Key:
        """This record's key, in the order of `table.key`."""
        return tuple(getattr(self, name) for name in self.table.key)


R = TypeVar("R", bound=Record)
