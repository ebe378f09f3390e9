"""Who serves this database, and which of them does the work that needs doing once. Written seldom, small, unsigned.

Whoever can write to the database can stop background work or end a replica with these rows; he gains no token.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from storage.table import Record, Table


class ReplicaRecord(Record, frozen=True, kw_only=True):
    """One replica, by its name. While it lives it writes the row again every second, so `rev` moves.

    life: of one process from start to end; another one under the same name has another. position: up to where it has
    read the feed. ended_at: it left, or others found it silent; the row goes when its sessions are closed.
    """

    table: ClassVar[Table] = Table(name="replica", key=("instance",))

    instance: str
    life: str
    release: str
    started_at: datetime
    seen_at: datetime
    position: int
    ended_at: datetime | None = None


class ClaimRecord(Record, frozen=True, kw_only=True):
    """Work that one replica does for all. `rev` changes only when it moves, so it is the fencing token.

    instance, life: whose it is; empty: nobody's.
    """

    table: ClassVar[Table] = Table(name="claim", key=("name",))

    name: str
    instance: str
    life: str
    since: datetime
