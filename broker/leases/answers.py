"""The frames that several operations answer with."""

from __future__ import annotations

from collections.abc import Sequence

from broker.errors import BrokerError, Conflict, RateLimited, Tampered, Unavailable
from broker.leases.held import Holder
from storage.records import LeaseRecord
from tokenbroker_client.wire import ENCODER, Error, ErrorCode, GoneCode, Revoked

WIRE_CODES: dict[type[BrokerError], ErrorCode] = {
    Conflict: ErrorCode.UNAVAILABLE,
    Tampered: ErrorCode.UNAVAILABLE,
}
"""Errors that the wire names otherwise than by their own code."""


def wire_code(error: BrokerError) -> ErrorCode:
    """The code that a worker sees. An error that the wire has no word for is our bug: internal."""
    for kind, code in WIRE_CODES.items():
        if isinstance(error, kind):
            return code
    try:
        return ErrorCode(error.code)
    except ValueError:
        return ErrorCode.INTERNAL


def error_frame(error: BrokerError, request_id: int | None = None) -> bytes:
    """An error frame; operators' details of rows that were tampered with stay out of it."""
    code = wire_code(error)
    message = "the broker cannot serve this now" if isinstance(error, (Tampered, Conflict)) else error.message
    retry = error.retry_after_s if isinstance(error, (RateLimited, Unavailable)) else None
    if retry is None and code is ErrorCode.UNAVAILABLE:
        retry = 1.0
    return ENCODER.encode(Error(code=code, id=request_id, message=message[:1024], retry_after_s=retry))


REVOKING_MAX = 1024
"""Revoked leases of one session whose wipe is still awaited; beyond, the longest awaited is no longer."""


def push_revoked(holder: Holder, records: Sequence[LeaseRecord], reason: str) -> None:
    """Tell a worker that these leases are over, and await that it wiped them."""
    for record in records:
        holder.revoking[record.lease] = record
        holder.remember_gone(record.lease, GoneCode.REVOKED)
    while len(holder.revoking) > REVOKING_MAX:
        holder.revoking.pop(next(iter(holder.revoking)))
    for start in range(0, len(records), 500):
        chunk = tuple(record.lease for record in records[start : start + 500])
        holder.send(ENCODER.encode(Revoked(leases=chunk, reason=reason[:1024])))
