"""The writer of somebody who only looks: it refuses."""

from __future__ import annotations

from collections.abc import Sequence

from broker.audit.entries import Entry
from broker.errors import Unavailable
from storage.port import Committed, Delete, Expect
from storage.table import Key, Record


class NoWriter:
    """Satisfies what the authority needs to be loaded, and writes nothing."""

    async def commit(
        self,
        entries: Sequence[Entry],
        *,
        inserts: Sequence[Record] = (),
        updates: Sequence[Record] = (),
        deletes: Sequence[Delete] = (),
        expects: Sequence[Expect] = (),
        announce: Sequence[tuple[str, Key]] = (),
    ) -> Committed:
        """Raise Unavailable."""
        raise Unavailable("the doctor writes nothing")
