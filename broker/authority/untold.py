"""Changes of this process that its listeners have still to hear of, in case the feed never names them.

The feed carries no MAC, so whoever can write to the database can take lines out of it. A change that this process made
or took over is known to it all the same, and is told without the feed.
"""

from __future__ import annotations

from collections.abc import Iterable

from storage.table import Key

Name = tuple[str, Key]
"""A table, and the key of one of its rows."""


class Untold:
    """Names of changed rows, each once. The feed has until the second look after a change to name it."""

    __slots__ = ("_fresh", "_waiting")

    def __init__(self) -> None:
        self._fresh: dict[Name, None] = {}
        self._waiting: dict[Name, None] = {}

    def add(self, names: Iterable[Name]) -> None:
        """These rows changed."""
        self._fresh.update(dict.fromkeys(names))

    def look(self, named: Iterable[Name]) -> list[Name]:
        """Strike what the feed has named by this look; what is due all the same, in the order of the changes."""
        for name in named:
            self._fresh.pop(name, None)
            self._waiting.pop(name, None)
        due, self._waiting, self._fresh = list(self._waiting), self._fresh, {}
        return due
