"""What is remembered: one module per noun, every type sealed or public, never a plaintext.

`ALL` names every record type; adapters make their schema from it. Records in `AUTHORITY` decide who gets what and
carry a `mac` that the broker computes and checks; storage only keeps it.
"""

from __future__ import annotations

from storage.records.admins import AdminRecord, IdempotencyRecord
from storage.records.audit import AuditBlockRecord, AuditLogRecord, CheckpointRecord
from storage.records.grants import GrantRecord
from storage.records.issuing import IssuedRecord, IssuerRecord
from storage.records.keys import DataKeyRecord, KeyringRecord, ManifestRecord, RootRecord, WrapRecord
from storage.records.leases import LeaseRecord, SessionRecord
from storage.records.pools import MemberRecord, PoolRecord, SeatRecord, TicketRecord
from storage.records.replicas import ClaimRecord, ReplicaRecord
from storage.records.rotation import RolloutRecord, RolloutTallyRecord, RotationPolicyRecord, RotationRecord
from storage.records.tokens import TokenRecord, VersionRecord
from storage.records.uses import UseRecord
from storage.records.workers import EnrolmentRecord, WorkerKey, WorkerRecord
from storage.table import Record

AUTHORITY: tuple[type[Record], ...] = (
    AdminRecord,
    DataKeyRecord,
    EnrolmentRecord,
    GrantRecord,
    IssuerRecord,
    KeyringRecord,
    PoolRecord,
    RotationPolicyRecord,
    WorkerRecord,
)
AUDIT: tuple[type[Record], ...] = (AuditBlockRecord, AuditLogRecord, CheckpointRecord)
"""Written once; of a log, `rev` moves until `closed_at` is set. An adapter may refuse every other change of these."""
ALL: tuple[type[Record], ...] = (
    *AUTHORITY,
    *AUDIT,
    ClaimRecord,
    IdempotencyRecord,
    IssuedRecord,
    LeaseRecord,
    ManifestRecord,
    MemberRecord,
    ReplicaRecord,
    RolloutRecord,
    RolloutTallyRecord,
    RootRecord,
    RotationRecord,
    SeatRecord,
    SessionRecord,
    TicketRecord,
    TokenRecord,
    UseRecord,
    VersionRecord,
)

__all__ = [
    "ALL",
    "AUDIT",
    "AUTHORITY",
    "AdminRecord",
    "AuditBlockRecord",
    "AuditLogRecord",
    "CheckpointRecord",
    "ClaimRecord",
    "DataKeyRecord",
    "EnrolmentRecord",
    "GrantRecord",
    "IdempotencyRecord",
    "IssuedRecord",
    "IssuerRecord",
    "KeyringRecord",
    "LeaseRecord",
    "ManifestRecord",
    "MemberRecord",
    "PoolRecord",
    "ReplicaRecord",
    "RolloutRecord",
    "RolloutTallyRecord",
    "RootRecord",
    "RotationPolicyRecord",
    "RotationRecord",
    "SeatRecord",
    "SessionRecord",
    "TicketRecord",
    "TokenRecord",
    "UseRecord",
    "VersionRecord",
    "WorkerKey",
    "WorkerRecord",
    "WrapRecord",
]
