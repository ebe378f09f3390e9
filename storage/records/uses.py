"""When each grant was last of use to whom: what an access review asks, longer than leases stay on record."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from storage.table import Record, Table


class UseRecord(Record, frozen=True, kw_only=True):
    """When a worker first and last leased something by a grant, to about a minute."""

    table: ClassVar[Table] = Table(name="use", key=("worker", "grant"))

    worker: str
    grant: str
    first_at: datetime
    last_at: datetime
    last_token: str
