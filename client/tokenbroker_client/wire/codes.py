"""The words of the wire protocol that are chosen from a list: error codes, close codes, and how a lease ends.

Frames carry codes as plain strings, so that a client survives a code that it does not know. What a code does to the
client is in `tokenbroker_client.errors`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ErrorCode(StrEnum):
    """`code` of an error frame."""

    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    NOT_FOUND = "not_found"
    GONE = "gone"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class GoneCode(StrEnum):
    """`code` of an item in a `gone` list: why this lease is over, or could not be served."""

    EXPIRED = "expired"
    RELEASED = "released"
    REVOKED = "revoked"
    UNKNOWN = "gone"
    """No lease of this worker has that id, or no longer; which of the two is not told."""


class CloseCode(IntEnum):
    """Why the WebSocket was closed. Codes below 4000 are those of RFC 6455 section 7.4.1."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_LARGE = 1009
    RESTARTING = 1012
    MALFORMED = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    """The worker is disabled or expired, or its key was removed."""
    HANDSHAKE_TIMEOUT = 4408
    SUPERSEDED = 4409
    TOO_MANY = 4429


class AuthMethod(StrEnum):
    """How a worker proves who it is; fixed when it is registered."""

    ED25519 = "ed25519"
    JWT = "jwt"
    MTLS = "mtls"


class AckStatus(StrEnum):
    """What a worker did about a push."""

    APPLIED = "applied"
    FAILED = "failed"
    WIPED = "wiped"


class ReportEvent(StrEnum):
    """What became of a value upstream."""

    REJECTED = "rejected"
    RATE_LIMITED = "rate_limited"
    OK = "ok"


class Stage(StrEnum):
    """Which version of a token a lease follows."""

    CURRENT = "current"
    PREVIOUS = "previous"


class Encoding(StrEnum):
    """How bytes became the JSON string `value`."""

    UTF8 = "utf8"
    B64 = "b64"
