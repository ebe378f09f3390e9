"""The voice of the demo: chapters and sentences, on a terminal with a live picture of the workers below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.cli.failures import printable
from broker.demo.verdict import Verdict

_PICTURES_PER_S = 8


class Narrator:
    """Writes to one console. Plain lines where that is no terminal."""

    def __init__(self, *, console: Console) -> None:
        self._console = console

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self._console.print()
        self._console.print(Text(title, style="bold cyan"))

    def tell(self, text: str) -> None:
        """A sentence."""
        self._console.print(Text(f"  {printable(text)}"))

    def command(self, text: str) -> None:
        """The command that does by hand what happens next."""
        self._console.print(Text(f"  $ tokenbroker {text}", style="dim"))

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table in the text."""
        self._console.print(_table(titles, rows), crop=False)

    def verdict(self, verdict: Verdict) -> None:
        """The end."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        table.add_column("promised")
        table.add_column("held")
        table.add_column("seen", overflow="fold")
        for judgement in verdict.judgements:
            mark = Text("yes", style="green") if judgement.held else Text("NO", style="bold red")
            table.add_row(Text(judgement.promise), mark, Text(printable(judgement.seen)))
        self._console.print(table, crop=False)

    @contextmanager
    def watching(self, titles: Sequence[str], rows: Callable[[], Sequence[Sequence[object]]]) -> Iterator[None]:
        """Show these rows, always as they are, below the text; on a terminal only."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            get_renderable=lambda: _table(titles, rows()),
            console=self._console,
            refresh_per_second=_PICTURES_PER_S,
            transient=True,
        ):
            yield


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(*titles, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    return table
