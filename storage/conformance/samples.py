"""Example records of any type, made from its type hints: a law covers record types that it has never heard of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import msgspec.inspect as types

from storage.records import LeaseRecord
from storage.table import R

START = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
"""The instant that samples count from."""


def at(seconds: float) -> datetime:
    """So long after START."""
    return START + timedelta(seconds=seconds)


def sample(kind: type[R], number: int, **fields: object) -> R:
    """The record of that number: revision 1, every field set, keys differ with the number and sort by it."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    made = {field.name: _value(field.type, field.name, number) for field in info.fields}
    return kind(**{**made, "rev": 1, **fields})


def bare(kind: type[R], number: int) -> R:
    """Like `sample`, but None wherever None is allowed, and empty whatever may be empty."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    made = {field.name: _empty(field.type) for field in info.fields if field.name not in {"rev", *kind.table.key}}
    return sample(kind, number, **{name: value for name, value in made.items() if value is not _FULL})


def lease(number: int, **fields: object) -> LeaseRecord:
    """A lease; without further fields it is due at `at(number)` and is never pruned."""
    return sample(
        LeaseRecord, number, **{"due_at": at(number), "prune_at": None, "wiped_at": None, "ended_at": None, **fields}
    )


def following(record: R, **fields: object) -> R:
    """The record's next revision, with these fields changed."""
    return msgspec.structs.replace(record, rev=record.rev + 1, **fields)


_FULL = object()


def _value(hint: types.Type, name: str, number: int) -> Any:  # noqa: PLR0911 - one line per shape of hint
    match hint:
        case types.LiteralType(values=values):
            return sorted(values, key=str)[number % len(values)]
        case types.StrType():
            return f"{name}-{number:06d}"
        case types.IntType():
            return number
        case types.FloatType():
            return number + 0.1
        case types.BytesType():
            return bytes([number % 256, 0, 255]) + name.encode()
        case types.BoolType():
            return number % 2 == 1
        case types.DateTimeType():
            return at(number)
        case types.UnionType(types=members):
            return _value(next(m for m in members if not isinstance(m, types.NoneType)), name, number)
        case types.VarTupleType(item_type=item):
            return tuple(_value(item, name, number + n) for n in range(3))
        case types.TupleType(item_types=items):
            return tuple(_value(item, name, number + n) for n, item in enumerate(items))
        case types.DictType(key_type=key, value_type=value):
            return {_value(key, name, number + n): _value(value, name, number + n) for n in (2, 0, 1)}
        case types.StructType(cls=cls, fields=fields):
            return cls(**{field.name: _value(field.type, field.name, number) for field in fields})
    raise TypeError(f"no sample for {name}: {hint!r}")


def _empty(hint: types.Type) -> Any:
    match hint:
        case types.UnionType():
            return None
        case types.StrType():
            return ""
        case types.BytesType():
            return b""
        case types.VarTupleType():
            return ()
        case types.DictType():
            return {}
    return _FULL
