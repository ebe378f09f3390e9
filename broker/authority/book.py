"""The verified rows of one authority table, in memory, for everybody to read. Only `ledger` changes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from storage.table import Key, Record

if TYPE_CHECKING:
    from broker.authority.ledger import Ledger

R_co = TypeVar("R_co", bound=Record, covariant=True)


class Book(Generic[R_co]):
    """What this replica knows of one authority table: each row's MAC and the whole set's manifest were verified.

    It never waits and never fails. It shows this replica's own commits at once, those of others after the next refresh.
    """

    __slots__ = ("_kind", "_ledger")

    def __init__(self, kind: type[R_co], ledger: Ledger) -> None:
        self._kind = kind
        self._ledger = ledger

    @property
    def generation(self) -> int:
        """Grows with every change of the rows; equal generations mean equal rows. Meaningful in this process only."""
        return self._ledger.generation

    def get(self, key: Key) -> R_co | None:
        """The row with this key, or None."""
        row = self._ledger.rows.get(key)
        return row if isinstance(row, self._kind) else None

    def __iter__(self) -> Iterator[R_co]:
        """The rows of this moment, in no particular order; changes made meanwhile do not show."""
        rows = tuple(self._ledger.rows.values())
        return (row for row in rows if isinstance(row, self._kind))

    def __len__(self) -> int:
        return len(self._ledger.rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._ledger.rows
