"""Tables for people at a terminal. What programs and pipes get is in `output`."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the rows below their titles, as wide as the terminal is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        # Text, not str: square brackets in a name or a reason are no markup.
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
