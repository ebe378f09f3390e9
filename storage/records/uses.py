"""When each grant was last of use to whom: what an access review asks, longer than leases stay on record."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from storage.table import Record, Table


class UseRecord(Record, frozen=True, kw_only=True):
    """When somebody first and last used something, to about a minute. Unsigned: nobody gets anything by it.

    actor: as audit entries name them. Of "worker:NAME" there is one row for each grant that it leased by, and one with
    an empty grant, of its connections; of "admin:NAME", one with an empty grant, of its requests. The row of "system"
    says since when uses are kept. last_token: that was leased, empty where none is.
    """

    table: ClassVar[Table] = Table(name="use", key=("actor", "grant"))

    actor: str
    grant: str
    first_at: datetime
    last_at: datetime
    last_token: str
