"""The audit log as storage keeps it: numbered logs, blocks of encoded entries, signed checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from storage.table import Record, Table


class AuditLogRecord(Record, frozen=True, kw_only=True):
    """One log: one replica's life from start to stop. `previous` is the log it continues, 0 for none.

    public_key: Ed25519, 32 bytes, signs this log's checkpoints.
    """

    table: ClassVar[Table] = Table(name="audit_log", key=("log",), indexes={"instance": ("instance", "log")})

    log: int
    instance: str
    origin: str
    previous: int
    public_key: bytes
    opened_at: datetime
    closed_at: datetime | None = None


class AuditBlockRecord(Record, frozen=True, kw_only=True):
    """The entries of one commit: `count` of them, the first numbered `seq`, each behind a 2-byte big-endian length.

    Written only by `Storage.commit` (AuditAppend), which numbers them.
    """

    table: ClassVar[Table] = Table(name="audit_block", key=("log", "seq"))

    log: int
    seq: int
    count: int
    entries: bytes


class CheckpointRecord(Record, frozen=True, kw_only=True):
    """A signed tree head over the first `size` entries of a log; `note` is a C2SP signed note."""

    table: ClassVar[Table] = Table(name="checkpoint", key=("log", "size"))

    log: int
    size: int
    note: str
    signed_at: datetime
