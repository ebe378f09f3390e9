"""Which version a lease has and had, and what its worker said of each. Pure; when one is sent is the operations'."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from storage.records import LeaseRecord
from storage.records.leases import PastVersion

PAST_MAX: Final = 32
"""Earlier versions that a lease remembers; beyond, the oldest is forgotten, and stands in the audit log alone."""


def given(record: LeaseRecord, version: int, *, now: datetime, pushed: bool, rev: int = 0) -> LeaseRecord:
    """The lease whose worker is about to be sent this version.

    pushed: the worker did not ask for the value, so it is to acknowledge it; else the value is an answer, or the worker
    said that it has it already. rev: its revision from now on; 0: the one of `record`, which was raised before.
    """
    rev = rev or record.rev
    pushed_at = now if pushed else None
    if version == record.version:
        if pushed:
            return msgspec.structs.replace(record, rev=rev, pushed_at=now, acked_at=None)
        if record.pushed_at is None and rev == record.rev:
            return record
        return msgspec.structs.replace(record, rev=rev, pushed_at=None)
    before = PastVersion(version=record.version, since=record.version_at or record.granted_at, acked_at=record.acked_at)
    return msgspec.structs.replace(
        record,
        rev=rev,
        version=version,
        version_at=now,
        pushed_at=pushed_at,
        acked_at=None,
        ack_failed="",
        failed_at=None,
        past=(*record.past, before)[-PAST_MAX:],
    )


def applied(record: LeaseRecord, version: int, *, now: datetime) -> LeaseRecord | None:
    """The lease whose worker says that it uses this version; None: that is not new, or it was never sent that one.

    What is said of the version that was sent last counts most: a late word about one before changes nothing after it.
    """
    if version == record.version:
        if record.acked_at is not None and not record.ack_failed:
            return None
        return msgspec.structs.replace(
            record, rev=record.rev + 1, acked_version=version, acked_at=now, ack_failed="", failed_at=None
        )
    index = next((i for i in reversed(range(len(record.past))) if record.past[i].version == version), None)
    if index is None or record.acked_at is not None or record.past[index].acked_at is not None:
        return None
    said = msgspec.structs.replace(record.past[index], acked_at=now)
    past = (*record.past[:index], said, *record.past[index + 1 :])
    return msgspec.structs.replace(record, rev=record.rev + 1, acked_version=version, past=past)


def failed(record: LeaseRecord, version: int, detail: str, *, now: datetime) -> LeaseRecord | None:
    """The lease whose worker could not use this version; None: that is not new, or another one was sent last.

    Of a revoked lease it is the wipe that failed, whatever version is named.
    """
    told = detail or "failed"
    if version != record.version and record.state != "revoked":
        return None
    if told == record.ack_failed and (record.state != "revoked" or wipe_failed(record)):
        return None
    return msgspec.structs.replace(record, rev=record.rev + 1, ack_failed=told, failed_at=now)


def wipe_failed(record: LeaseRecord) -> bool:
    """Whether the worker answered the revocation by saying that it could not wipe the value."""
    if record.state != "revoked" or record.ended_at is None or record.failed_at is None:
        return False
    return record.failed_at >= record.ended_at


def is_confirmed(record: LeaseRecord) -> bool:
    """Whether its worker has the version that was sent last: it asked for it, or said that it applied it."""
    return not record.ack_failed and (record.pushed_at is None or record.acked_at is not None)
