"""Registered identities and the one-time codes that register them. Public keys and hashes only."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from storage.table import Record, Table


class WorkerKey(msgspec.Struct, frozen=True, kw_only=True):
    """An Ed25519 public key (32 raw bytes) that proves this worker."""

    public_key: bytes
    added_at: datetime


class WorkerRecord(Record, frozen=True, kw_only=True):
    """A registered identity. `auth` is the one method it may use, fixed at registration."""

    table: ClassVar[Table] = Table(name="worker", key=("name",))

    name: str
    groups: tuple[str, ...]
    auth: Literal["ed25519"]
    keys: tuple[WorkerKey, ...]
    labels: dict[str, str]
    single_session: bool
    disabled: bool
    created_at: datetime
    expires_at: datetime | None
    mac: bytes = b""


class EnrolmentRecord(Record, frozen=True, kw_only=True):
    """A one-time code, by the SHA-256 of its secret part. Used codes stay until they are pruned."""

    table: ClassVar[Table] = Table(name="enrolment", key=("id",), due=("expires_at",))

    id: str
    secret_sha256: bytes
    worker: str
    groups: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    mac: bytes = b""
