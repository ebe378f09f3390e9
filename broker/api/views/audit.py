"""Bodies about the audit log, and about the broker itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from broker.api.views.common import Answer, Instant, Request

if TYPE_CHECKING:
    from broker.admin.audit_desk import TailEntry
    from broker.audit.prove import Proof
    from broker.audit.report import Report
    from broker.vault.gate import KmsHealth
    from storage.records import ReplicaRecord

Position = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class AskProof(Request, frozen=True, kw_only=True):
    """Which entry: its log, and its number in it from 0."""

    log: Position
    seq: Position


class AuditEntry(Answer, frozen=True, kw_only=True):
    """An entry where it stands. entry: as it was hashed and signed; `event` tells its kind."""

    log: int
    seq: int
    entry: msgspec.Raw


class Verification(Answer, frozen=True, kw_only=True):
    """ok: no problem was found. problems: evidence of tampering, loss or a defect. notes: worth knowing."""

    ok: bool
    logs: int
    entries: int
    checkpoints: int
    problems: list[str]
    notes: list[str]


class EntryProof(Answer, frozen=True, kw_only=True):
    """A proof that anybody can check with the verifier key alone (docs/spec/audit.md)."""

    format: str
    log: int
    index: int
    entry: str
    checkpoint: str
    inclusion: list[str]


class KmsState(Answer, frozen=True, kw_only=True):
    """A KMS key as this replica knows it, without asking it now.

    state: `closed` is asked as needed, `open` is left alone because it did not answer, `probing`: one call finds out.
    failures: unanswered calls in a row. answered_s_ago: null before its first answer; refusals are answers. last_error:
    the code of the last call's error, "" after success. KMS keys that only wrap are left out.
    """

    kms_key: str
    state: str
    failures: int
    answered_s_ago: float | None
    last_error: str


class Replica(Answer, frozen=True, kw_only=True):
    """A replica on this database. ended_at: it left or fell silent, and its sessions are still to be closed."""

    instance: str
    release: str
    started_at: Instant
    seen_at: Instant
    ended_at: Instant | None


class Status(Answer, frozen=True, kw_only=True):
    """This replica. kms: its KMS keys. replicas: all that serve this database, as it last saw them. facts: numbers and
    words for people, without a promise.
    """

    cluster: str
    instance: str
    version: str
    now: Instant
    kms: list[KmsState]
    replicas: list[Replica]
    facts: dict[str, str | int | float | bool]


def entry_view(entry: TailEntry) -> AuditEntry:
    """An entry as answers show it."""
    return AuditEntry(log=entry.log, seq=entry.seq, entry=msgspec.Raw(entry.text))


def replica_view(row: ReplicaRecord) -> Replica:
    """A replica's row as answers show it."""
    return Replica(
        instance=row.instance,
        release=row.release,
        started_at=row.started_at,
        seen_at=row.seen_at,
        ended_at=row.ended_at,
    )


def kms_view(health: KmsHealth) -> KmsState:
    """A KMS key's health as answers show it."""
    return KmsState(
        kms_key=health.kms_key,
        state=health.state.value,
        failures=health.failures,
        answered_s_ago=health.answered_s_ago,
        last_error=health.last_error,
    )


def report_view(report: Report) -> Verification:
    """A verification as answers show it."""
    return Verification(
        ok=report.ok,
        logs=report.logs,
        entries=report.entries,
        checkpoints=report.checkpoints,
        problems=report.problems,
        notes=report.notes,
    )


def proof_view(proof: Proof) -> EntryProof:
    """A proof as answers show it."""
    return EntryProof(
        format=proof.format,
        log=proof.log,
        index=proof.index,
        entry=proof.entry,
        checkpoint=proof.checkpoint,
        inclusion=list(proof.inclusion),
    )
