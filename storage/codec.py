"""How one record type becomes a row and back: derived once from its type hints, the same for every adapter.

A row is a tuple of `str`, `int`, `float`, `bytes` and None in field order: instants are integer microseconds since
the Unix epoch, bools are 0 and 1, everything structured is JSON text with sorted keys. How rows are kept, and in
which SQL dialect, is the adapters' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from itertools import compress, repeat
from operator import attrgetter, eq, is_not, itemgetter, ne
from typing import Any, Final, Generic

import msgspec
import msgspec.inspect as types
from msgspec.structs import astuple

from storage.errors import Damaged
from storage.table import Key, R, Record

Cell = str | int | float | bytes | None
Row = tuple[Cell, ...]
Encode = Callable[[Any], Cell]
Decode = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_JSON = msgspec.json.Encoder(order="deterministic")

PARTS_MAX: Final = 64
"""Kinds of change of one record type that are written in part; any other one is written whole."""


class Affinity(Enum):
    """What a column holds in the database, in the words of SQL."""

    TEXT = "TEXT"
    INTEGER = "INTEGER"
    REAL = "REAL"
    BLOB = "BLOB"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One field as the database sees it. encode and decode convert a value that is not None; None: kept as it is."""

    name: str
    affinity: Affinity
    nullable: bool
    encode: Encode | None
    decode: Decode | None


@lru_cache(maxsize=1024)
def instant_to_int(instant: datetime) -> int:
    """Microseconds since the Unix epoch. TypeError: the instant is naive.

    Remembered, because records that are written together share their instants.
    """
    return (instant - _EPOCH) // _MICROSECOND


def int_to_instant(micros: int) -> datetime:
    """The instant so many microseconds after the Unix epoch, in UTC. OverflowError: outside years 1 to 9999."""
    return _EPOCH + timedelta(0, 0, micros)


class Codec(Generic[R]):
    """Rows of one record type. Build it once per type: the constructor inspects, the methods only convert."""

    def __init__(self, kind: type[R], part: frozenset[str] | None = None) -> None:
        """part: of these fields alone, and the key and the revision; None: of all."""
        self.kind = kind
        self.table = kind.table
        known = None if part is None else part.union(kind.table.key, ("rev",))
        self.columns = tuple(_column(field) for field in _fields(kind) if known is None or field.name in known)
        self.names = tuple(column.name for column in self.columns)
        self._cells: Callable[[R], Iterable[Any]] = astuple if known is None else attrgetter(*self.names)
        self._parts: dict[tuple[str, ...], Codec[R]] = {}
        self._encoders = [(i, c.encode) for i, c in enumerate(self.columns) if c.encode is not None]
        self._decoders = [(i, c.decode) for i, c in enumerate(self.columns) if c.decode is not None]
        self.defaults: Row = _defaults(kind, self.columns) if part is None else ()
        """The cells of the last fields, as many as have defaults, of a record that says nothing of them."""
        self.key_at = tuple(self.names.index(name) for name in self.table.key)
        self.rev_at = self.names.index("rev")
        self._key: Callable[[Row], Any] = itemgetter(*self.key_at)
        self._key_is_one = len(self.key_at) == 1
        if part is None:
            self._check_declaration()

    def amending(self, before: R, after: R) -> Codec[R]:
        """The codec of what differs between two revisions of a record, or of all of it, beyond `PARTS_MAX`."""
        return self._of(tuple(compress(self.names, map(is_not, astuple(before), astuple(after)))))

    def amending_all(self, befores: Sequence[R], afters: Sequence[R]) -> Codec[R] | None:
        """As `amending`, of records that all differ in the same fields; None: they do not.

        Column by column, which costs a third of asking for each record.
        """
        was = list(zip(*map(astuple, befores), strict=True))
        now = list(zip(*map(astuple, afters), strict=True))
        differs = list(map(ne, was, now))
        for old, new in compress(zip(was, now, strict=True), differs):
            if any(map(eq, old, new)):
                return None
        return self._of(tuple(compress(self.names, differs)))

    def _of(self, differing: tuple[str, ...]) -> Codec[R]:
        part = self._parts.get(differing)
        if part is None:
            if len(self._parts) >= PARTS_MAX:  # each costs memory here, and a statement for each size of batch
                return self
            part = self._parts[differing] = Codec(self.kind, frozenset(differing))
        return part

    def to_row(self, record: R) -> Row:
        """The record's cells. TypeError: a field holds another type than its hint says (a naive instant, say)."""
        cells = list(self._cells(record))
        for at, encode in self._encoders:
            value = cells[at]
            if value is not None:
                cells[at] = encode(value)
        return tuple(cells)

    def to_rows(self, records: Sequence[R]) -> list[Row]:
        """The cells of each record, of which there is one at least. Errors as in `to_row`.

        Those of several column by column, so that what all of them share, as records that are written together share
        their instants, is converted once.
        """
        if len(records) == 1:
            return [self.to_row(records[0])]
        columns = list(zip(*map(self._cells, records), strict=True))
        cells: list[Iterable[Any]] = list(columns)
        for at, encode in self._encoders:
            column = columns[at]
            first = column[0]
            if column.count(first) < len(column):
                cells[at] = [None if value is None else encode(value) for value in column]
            elif first is not None:
                cells[at] = repeat(encode(first), len(column))
        return list(zip(*cells, strict=True))

    def from_row(self, row: Row) -> R:
        """The record that these cells describe. Damaged: they describe none; table and key are named."""
        cells: list[Any] = list(row)
        try:
            for at, decode in self._decoders:
                value = cells[at]
                if value is not None:
                    cells[at] = decode(value)
            return msgspec.convert(dict(zip(self.names, cells, strict=True)), self.kind)
        except (msgspec.MsgspecError, ValueError, OverflowError, TypeError) as error:
            # The reason names types and columns, never a cell's content.
            raise Damaged(
                f"table {self.table.name!r}, key {self.key_of(row)!r}: the row cannot be read "
                f"({type(error).__name__}); restore the newest backup"
            ) from None

    def key_of(self, row: Row) -> Key:
        """The row's key."""
        key = self._key(row)
        return (key,) if self._key_is_one else key

    def bare_keys(self, rows: Iterable[Row]) -> set[Any]:
        """The keys of all rows, for comparison among themselves only: one-column keys come without their tuple."""
        return set(map(self._key, rows))

    def column(self, name: str) -> Column:
        """The column of that name. KeyError: the record has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.table.name!r} has no column {name!r}")

    def due_column(self, name: str) -> str:
        """`name`, if it is declared as a due column. KeyError: it is not."""
        if name not in self.table.due:
            raise KeyError(f"table {self.table.name!r} declares no due column {name!r}")
        return name

    def _check_declaration(self) -> None:
        for name in self.table.key + tuple(c for index in self.table.indexes.values() for c in index):
            column = self.column(name)
            if column.encode is not None or column.nullable or column.affinity not in {Affinity.TEXT, Affinity.INTEGER}:
                raise TypeError(f"{self.kind.__name__}.{name}: an order needs columns that are str or int, never None")
        for name in self.table.due:
            if self.column(name).decode is not int_to_instant:
                raise TypeError(f"{self.kind.__name__}.{name}: a due column is a datetime")


def codecs(kinds: Iterable[type[Record]]) -> Mapping[type[Record], Codec[Any]]:
    """A codec for each record type. TypeError: a declaration that no adapter could keep."""
    return {kind: Codec(kind) for kind in kinds}


def _fields(kind: type[Record]) -> tuple[types.Field, ...]:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return info.fields


def _defaults(kind: type[Record], columns: Sequence[Column]) -> Row:
    cells: list[Cell] = []
    for field, column in zip(reversed(_fields(kind)), reversed(columns), strict=True):
        if field.default is msgspec.NODEFAULT:
            break
        cell: Any = field.default
        cells.append(cell if cell is None or column.encode is None else column.encode(cell))
    return tuple(reversed(cells))


def _column(field: types.Field) -> Column:
    hint, nullable = _without_none(field.type)
    if isinstance(hint, types.LiteralType) and all(isinstance(value, str) for value in hint.values):
        hint = types.StrType()
    try:
        affinity, encode, decode = _SHAPES[type(hint)]
    except KeyError:
        raise TypeError(f"{field.name}: a record cannot hold {hint!r} (see storage/table.py)") from None
    return Column(name=field.name, affinity=affinity, nullable=nullable, encode=encode, decode=decode)


def _without_none(hint: types.Type) -> tuple[types.Type, bool]:
    if not isinstance(hint, types.UnionType):
        return hint, False
    rest = [member for member in hint.types if not isinstance(member, types.NoneType)]
    if len(rest) != 1:
        raise TypeError(f"a record field has one type, or that type and None: {hint!r}")
    return rest[0], len(rest) < len(hint.types)


def _to_json(value: object) -> str:
    return "[]" if value == () else _JSON.encode(value).decode()  # most tuples are empty


def _bool(cell: int) -> bool:
    if cell not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(cell)


_STRUCTURED = (Affinity.TEXT, _to_json, msgspec.json.decode)
"""Decoded without its type: `from_row` then checks the whole record in one pass."""

_SHAPES: Mapping[type[types.Type], tuple[Affinity, Encode | None, Decode | None]] = {
    types.StrType: (Affinity.TEXT, None, None),
    types.IntType: (Affinity.INTEGER, None, None),
    types.FloatType: (Affinity.REAL, None, None),
    types.BytesType: (Affinity.BLOB, None, None),
    types.BoolType: (Affinity.INTEGER, int, _bool),
    types.DateTimeType: (Affinity.INTEGER, instant_to_int, int_to_instant),
    types.VarTupleType: _STRUCTURED,
    types.TupleType: _STRUCTURED,
    types.DictType: _STRUCTURED,
    types.StructType: _STRUCTURED,
}
"""How each kind of hint is kept. What converts nothing is plain: it can be compared and ordered by."""
