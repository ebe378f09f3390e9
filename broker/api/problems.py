"""Translate what was refused into an HTTP status and a problem document (RFC 9457): one table, one place.

A message goes out as it is: the broker's messages are for the one who asked. Anything that is not of the broker's tree
is our bug; it becomes `internal` with a reference, and only the log has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from broker.admin import errors as admin_errors
from broker.api import errors as api_errors
from broker.errors import (
    BadRequest,
    BrokerError,
    Conflict,
    Denied,
    Gone,
    NotFound,
    RateLimited,
    StartRefused,
    Tampered,
    Unauthenticated,
    Unavailable,
)
from broker.upstream import errors as upstream_errors

MEDIA_TYPE: Final = "application/problem+json"


class Row(NamedTuple):
    """What a class of errors looks like over HTTP."""

    status: int
    title: str


TABLE: Final[Mapping[type[BrokerError], Row]] = MappingProxyType(
    {
        BrokerError: Row(500, "Internal error"),
        BadRequest: Row(400, "Bad request"),
        Unauthenticated: Row(401, "Not authenticated"),
        Denied: Row(403, "Denied"),
        NotFound: Row(404, "Not found"),
        Conflict: Row(409, "Conflict"),
        Gone: Row(410, "Gone"),
        RateLimited: Row(429, "Too many requests"),
        Unavailable: Row(503, "Unavailable"),
        Tampered: Row(500, "Stored data were tampered with"),
        StartRefused: Row(500, "Must not be served"),
        upstream_errors.UpstreamError: Row(502, "Failed upstream"),
        upstream_errors.BadSettings: Row(400, "Wrong settings"),
        admin_errors.PreconditionFailed: Row(412, "Changed in between"),
        api_errors.TooLarge: Row(413, "Body too large"),
        api_errors.WrongMediaType: Row(415, "Not JSON"),
        api_errors.WrongMethod: Row(405, "Method not allowed"),
        api_errors.BodyTooSlow: Row(408, "Body too slow"),
        api_errors.KeyReused: Row(422, "Idempotency key reused"),
    }
)
"""Each root class of the tree, and the narrower ones that differ from theirs. A class without a row has its base's."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document. `code` is stable; `detail` is for people; `reference` finds our bug in the log."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry_after_s: float | None = None
    reference: str | None = None


def row_of(kind: type[BrokerError]) -> Row:
    """The nearest row up the tree."""
    return next(TABLE[base] for base in kind.__mro__ if base in TABLE)


def problem_of(error: BrokerError) -> Problem:
    """The document for what was refused."""
    row = row_of(type(error))
    retry_after_s = error.retry_after_s if isinstance(error, RateLimited | Unavailable) else None
    return Problem(
        type=f"urn:tokenbroker:problem:{error.code}",
        title=row.title,
        status=row.status,
        detail=error.message,
        code=error.code,
        retry_after_s=None if retry_after_s is None else round(retry_after_s, 3),
    )


def internal_problem(reference: str) -> Problem:
    """The document for our bug; `reference` is random and in the log beside the traceback."""
    return Problem(
        type="urn:tokenbroker:problem:internal",
        title="Internal error",
        status=500,
        detail=f"this is a bug in the broker; its log has the cause under reference {reference}",
        code="internal",
        reference=reference,
    )
