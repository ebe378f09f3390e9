"""Operators, by the hash of their credential, and what repeated creation requests were answered."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from storage.table import Record, Table


class AdminRecord(Record, frozen=True, kw_only=True):
    """An operator. `credential_sha256` is the SHA-256 of a 256-bit random bearer credential."""

    table: ClassVar[Table] = Table(name="admin", key=("name",))

    name: str
    roles: tuple[str, ...]
    credential_sha256: bytes
    disabled: bool
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    mac: bytes = b""


class IdempotencyRecord(Record, frozen=True, kw_only=True):
    """What one creation request made, so that its repetition makes nothing new. Holds no response body."""

    table: ClassVar[Table] = Table(name="idempotency", key=("admin", "idempotency_key"), due=("expires_at",))

    admin: str
    idempotency_key: str
    request_sha256: bytes
    status: int
    location: str
    expires_at: datetime
