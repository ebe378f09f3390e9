"""storage.codec: rows from records, derived from type hints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from storage import records
from storage.codec import PARTS_MAX, Codec
from storage.conformance.samples import bare, sample
from storage.errors import Damaged
from storage.records import GrantRecord, KeyringRecord, LeaseRecord, TokenRecord, WorkerRecord
from storage.table import Record, Table


@pytest.mark.parametrize("kind", records.ALL)
@pytest.mark.parametrize("make", [sample, bare])
def test_a_row_gives_its_record_back(kind: type[Record], make: Any) -> None:
    """from_row undoes to_row for every record type, and rows hold nothing but what SQL has."""
    codec = Codec(kind)
    record = make(kind, 3)
    row = codec.to_row(record)
    assert {type(cell) for cell in row} <= {str, int, float, bytes, type(None)}
    assert codec.from_row(row) == record
    assert codec.key_of(row) == record.key


def test_the_same_record_gives_the_same_row() -> None:
    """JSON columns sort their keys, so equal records are equal rows whatever the order they were built in."""
    one = sample(TokenRecord, 1, labels={"a": "1", "b": "2"})
    two = sample(TokenRecord, 1, labels={"b": "2", "a": "1"})
    assert Codec(TokenRecord).to_row(one) == Codec(TokenRecord).to_row(two)


@pytest.mark.parametrize("kind", records.ALL)
def test_rows_of_several_records_are_those_of_each(kind: type[Record]) -> None:
    """What is converted once for all is what each record alone would say, whether or not they share it."""
    codec = Codec(kind)
    for together in ([sample(kind, 1), sample(kind, 1)], [sample(kind, 1), bare(kind, 2), sample(kind, 3)]):
        assert codec.to_rows(together) == [codec.to_row(record) for record in together]


def test_an_instant_is_microseconds_since_1970() -> None:
    """The stored number is that of every other tool."""
    codec = Codec(LeaseRecord)
    row = codec.to_row(sample(LeaseRecord, 1, granted_at=datetime(2001, 9, 9, 1, 46, 40, 7, tzinfo=UTC)))
    assert row[codec.names.index("granted_at")] == 1_000_000_000_000_007


def test_a_naive_instant_is_a_mistake() -> None:
    """An instant without a zone could be any; it is refused at once."""
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - the point of the test
    with pytest.raises(TypeError):
        Codec(LeaseRecord).to_row(sample(LeaseRecord, 1, granted_at=naive))


def test_kinds_of_change_that_are_written_in_part_are_bounded() -> None:
    """Whatever workers make differ: beyond the bound a change is written whole, and those known go on in part."""
    codec, before = Codec(LeaseRecord), sample(LeaseRecord, 1)
    names = ("token", "worker", "session", "instance", "grant", "reason", "member")
    parts = []
    for kind in range(1, 2 ** len(names)):
        differing = {name: f"new {name}" for at, name in enumerate(names) if kind >> at & 1}
        parts.append(codec.amending(before, replace(before, **differing)))
    assert len(set(parts[:PARTS_MAX])) == PARTS_MAX
    assert set(parts[PARTS_MAX:]) == {codec}
    assert codec.amending(before, replace(before, token="new again")) is parts[0]


def test_what_several_records_differ_in_is_what_each_differs_in() -> None:
    """Found for all at once, it is what each would say; where they do not agree, none has another's part."""
    codec, befores = Codec(LeaseRecord), [sample(LeaseRecord, number) for number in range(1, 4)]
    alike = [replace(before, rev=2, reason="new", acked_version=7) for before in befores]
    assert codec.amending_all(befores, alike) is codec.amending(befores[0], alike[0])
    assert codec.amending_all(befores, [replace(alike[0], member="one"), *alike[1:]]) is None
    assert codec.amending_all(befores, [replace(befores[0], rev=2), *alike[1:]]) is None


DAMAGES: list[tuple[type[Record], str, object]] = [
    (KeyringRecord, "authorize", "anybody"),
    (KeyringRecord, "kms_keys", "not json"),
    (KeyringRecord, "kms_keys", '{"a": 1}'),
    (GrantRecord, "windows", '[{"days": [1]}]'),
    (GrantRecord, "created_at", 2**62),
    (GrantRecord, "created_at", None),
    (WorkerRecord, "disabled", 7),
    (WorkerRecord, "name", 5),
]


@pytest.mark.parametrize(("kind", "column", "cell"), DAMAGES)
def test_a_row_that_cannot_be_read_names_itself(kind: type[Record], column: str, cell: object) -> None:
    """Damaged, with table and key, and without the contents of the row."""
    codec = Codec(kind)
    row: list[Any] = list(codec.to_row(sample(kind, 3)))
    row[codec.names.index(column)] = cell
    with pytest.raises(Damaged) as failure:
        codec.from_row(tuple(row))
    assert repr(kind.table.name) in str(failure.value)
    assert str(codec.key_of(tuple(row))) in str(failure.value)
    assert "anybody" not in str(failure.value)


def _declared(**fields: Any) -> type[Record]:
    table = Table(name="wrong", key=("name",), due=fields.pop("due", ()), indexes=fields.pop("indexes", {}))
    hints = {"table": ClassVar[Table], "name": str} | {name: hint for name, (hint, _) in fields.items()}
    return type("Wrong", (Record,), {"__annotations__": hints, "table": table}, frozen=True, kw_only=True)


@pytest.mark.parametrize(
    "declaration",
    [
        {"field": (str | int, None)},
        {"field": (object, None)},
        {"field": (datetime | None, None), "indexes": {"field": ("field",)}},
        {"field": (str | None, None), "indexes": {"field": ("field",)}},
        {"field": (bool, None), "indexes": {"field": ("field",)}},
        {"field": (int | None, None), "due": ("field",)},
    ],
)
def test_a_declaration_that_no_adapter_could_keep_is_refused(declaration: dict[str, Any]) -> None:
    """Two types in a column, an order by what may be None or is no text or integer, a due column without instants."""
    with pytest.raises(TypeError):
        Codec(_declared(**declaration))
