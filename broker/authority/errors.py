"""The ways in which stored authority can be wrong. Each is a `Tampered`, and each says where to look.

Keys in messages come from the database, so an attacker may have chosen them: they are shortened and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.errors import Tampered
from storage.table import Key

NAME_MAX = 120
"""Most characters of one key in a message."""
NAMED_MAX = 5
"""Most rows named in one message."""


class RowForged(Tampered):
    """A stored row has no valid MAC of this cluster; compare it with a backup and the audit log."""

    def __init__(self, message: str | None = None, *, table: str = "", key: Key = ()) -> None:
        super().__init__(message)
        self.table = table
        self.key = key


class TableAltered(Tampered):
    """The rows of a table are not the set that its manifest pins; compare with a backup and the audit log."""

    def __init__(self, message: str | None = None, *, table: str = "", keys: Iterable[Key] = ()) -> None:
        super().__init__(message)
        self.table = table
        self.keys = frozenset(keys)


class TableRolledBack(Tampered):
    """A manifest is older than one that this process has verified; somebody restored an earlier table."""

    def __init__(self, message: str | None = None, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


def key_name(key: Key) -> str:
    """The key as one escaped ASCII word of at most `NAME_MAX` characters: fit for logs and terminals."""
    name = ascii("/".join(str(part) for part in key))
    return name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 1]}~"


def row_name(table: str, key: Key) -> str:
    """How messages call a row."""
    return f"row {key_name(key)} of table {table}"
