"""Let a caller put its own record into the commit that creates something, so that both exist or neither."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from storage.table import Record


class Aside(NamedTuple):
    """Records that go into the same commit."""

    inserts: tuple[Record, ...] = ()
    updates: tuple[Record, ...] = ()


NO_ASIDE: Final = Aside()

Once = Callable[[str], Awaitable[Aside]]
"""Given the name (id, version number) of what is about to be created, the records to commit beside it.

Asked again at each attempt. Conflict: it has been created already, so this one must not be.
"""


async def nothing_beside(_made: str) -> Aside:
    """Commit nothing beside it."""
    return NO_ASIDE
