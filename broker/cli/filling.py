"""What `migrate` and `restore` show alike: how far a copy has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from broker.moving.filling import Progress as Shown


@contextmanager
def progress_bar() -> Iterator[Shown]:
    """Bars on standard error, one for each step, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Silent()
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield _Terminal(progress)


class _Silent:
    def begin(self, what: str, *, total: int | None, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, steps: int) -> None:
        """Say nothing."""


class _Terminal:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, what: str, *, total: int | None, done: int = 0) -> None:
        """A bar of its own, and the one before it stands still."""
        if self._task is not None:
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=done)

    def advance(self, steps: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, steps)
