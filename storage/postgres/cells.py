"""What PostgreSQL cannot hold as it is, and what is kept instead, in the same order.

`text` holds every character but NUL. Here NUL is written as the two characters U+0001 U+0001, and U+0001 as U+0001
U+0002, which keeps texts in the order of their code points. Which columns are text is the codec's knowledge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage.codec import Affinity, Cell, Codec, Row
from storage.errors import OutOfBounds

_ESCAPE = str.maketrans({"\0": "\1\1", "\1": "\1\2"})


def escaped(text: str) -> str:
    """The text as a `text` column holds it."""
    return text.translate(_ESCAPE) if "\0" in text or "\1" in text else text


def unescaped(text: str) -> str:
    """The text that `escaped` was given."""
    return text.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in text else text


def stored(cell: Cell) -> Cell:
    """The cell as a column holds it."""
    return escaped(cell) if type(cell) is str else cell


def columns_of(codec: Codec[Any], rows: Iterable[Row]) -> list[list[Cell]]:
    """The rows' cells, column by column, each as the database holds it: what a statement's arrays are bound to.

    OutOfBounds: a float that is not a number, which equals nothing.
    """
    columns: list[list[Cell]] = [list(cells) for cells in zip(*rows, strict=True)]
    for at, column in enumerate(codec.columns):
        if column.affinity is Affinity.TEXT:
            columns[at] = [stored(cell) for cell in columns[at]]
        elif column.affinity is Affinity.REAL and any(cell != cell for cell in columns[at]):  # noqa: PLR0124 - finds NaN
            raise OutOfBounds("a column cannot hold a value (not a number)")
    return columns


def row_of(record: Iterable[Any]) -> Row:
    """A row of the database as the codec reads it."""
    return tuple(unescaped(cell) if type(cell) is str else cell for cell in record)
