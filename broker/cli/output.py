"""What commands print: one JSON document for programs, or sentences and tables for people.

Standard output has facts only; messages and progress go to standard error. Colour and boxes appear on a terminal only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

import msgspec

from broker.cli.failures import printable

T = TypeVar("T")


class Column(NamedTuple, Generic[T]):
    """A column of a table: its title, and what it shows of an item."""

    title: str
    shown: Callable[[T], object]


class Output:
    """Prints in the form that the operator asked for."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def fact(self, document: object, *lines: str) -> None:
        """One document, or these lines."""
        if self.json:
            self._document(document)
        else:
            for line in lines:
                write_line(printable(line))

    def listing(self, items: Sequence[T], documents: Sequence[object], *columns: Column[T], nothing: str) -> None:
        """A list of documents, or a table of the items; `nothing` is said to people when there are none."""
        if self.json:
            self._document(list(documents))
        elif items:
            _print_table(items, columns)
        else:
            note(nothing)

    def details(self, document: object, facts: Mapping[str, object]) -> None:
        """One document, or its facts one below the other."""
        if self.json:
            self._document(document)
            return
        width = max(map(len, facts), default=0)
        for name, value in facts.items():
            write_line(f"{name:<{width}}  {printable(shown(value))}")

    @staticmethod
    def _document(document: object) -> None:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        sys.stdout.buffer.flush()


def write_line(text: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line for people, on standard error."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def shown(value: object) -> str:
    """A value as people read it: instants to the second, lists with commas, nothing as a dash."""
    match value:
        case None | "" | () | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case Mapping():
            return ", ".join(f"{key}={each}" for key, each in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _print_table(items: Sequence[T], columns: Sequence[Column[T]]) -> None:
    rows = [[printable(shown(column.shown(item))) for column in columns] for item in items]
    titles = [column.title for column in columns]
    if sys.stdout.isatty():
        from broker.cli.terminal import print_table  # noqa: PLC0415 - it takes long to load, and pipes need none of it

        print_table(titles, rows)
    else:
        _print_to_pipe([titles, *rows])


def _print_to_pipe(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need, without boxes, so that nothing is cut and lines stay lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.flush()
