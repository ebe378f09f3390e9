"""Grants: which subject may lease which tokens, for how long, under which conditions."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from storage.table import Record, Table


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A weekly time window in UTC.

    days: ISO weekdays, 1 (Monday) to 7. Minutes of the day, start inclusive, end exclusive.
    """

    days: tuple[int, ...]
    start_min: int
    end_min: int


class GrantRecord(Record, frozen=True, kw_only=True):
    """subject: "worker:NAME" or "group:NAME". source_cidrs, windows: empty means no such condition.

    previous: whether it allows the previous version, beside the current one.
    """

    table: ClassVar[Table] = Table(name="grant_", key=("id",), indexes={"subject": ("subject",)})

    id: str
    subject: str
    pattern: str
    ttl_s: int
    max_ttl_s: int
    source_cidrs: tuple[str, ...]
    windows: tuple[Window, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    previous: bool = False
    mac: bytes = b""
