"""What can go wrong between an app and its broker, as one tree. Wire-level errors are in `wire.errors`.

    BrokerError
    ├── BadRequest, Denied, NotFound, RateLimited, Unavailable, Internal    the broker's answer to a request
    ├── Gone
    │   └── LeaseGone           reading a lease that is over
    │       ├── LeaseExpired        its time ran out; the client asks again on its own
    │       ├── LeaseRevoked        the broker took it back
    │       ├── LeaseReleased       the app left its block
    │       └── LeaseDenied         the broker would not grant it again
    ├── ConnectionLost          no connection; the client reconnects on its own
    │   └── TimedOut                no answer within the deadline
    ├── SessionRefused          there will be no session; the client stops trying
    │   ├── Unauthenticated, Forbidden, Superseded, WrongCluster
    │   └── NotABroker, UntrustedCertificate        final only before the first session
    ├── Closed                  the `connect` block was left
    ├── NotText                 `value` of a token whose bytes are not text
    ├── BadAddress              the URL cannot be used
    │   └── PlaintextRefused
    ├── BadKey                  the key file cannot be used
    │   └── KeyExposed
    └── ChangeRejected          raised by an app's own handler, to say why it could not apply a change

The first line of a class docstring is its default message. No message holds a token's value.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Final, Self

from tokenbroker_client.wire import CloseCode, ErrorCode


class BrokerError(Exception):
    """The broker, or the way to it, did not do what was asked."""

    code: ClassVar[str] = "broker_error"

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().partition("\n")[0])
        self.retry_after_s = retry_after_s

    def fresh(self) -> Self:
        """Return an equal error without a traceback, to raise a remembered failure once more."""
        return copy.copy(self)


class BadRequest(BrokerError):
    """The request is outside the protocol's bounds."""

    code = "bad_request"


class Denied(BrokerError):
    """No live grant covers this token for this worker, or there is no such token."""

    code = "denied"


class NotFound(BrokerError):
    """The token is granted and has no current version; it is disabled, or all versions are retired."""

    code = "not_found"


class RateLimited(BrokerError):
    """The request is over a bound of the broker; `retry_after_s` says when to ask again."""

    code = "rate_limited"


class Unavailable(BrokerError):
    """The broker's storage or KMS cannot serve at present; `retry_after_s` says when to ask again."""

    code = "unavailable"


class Internal(BrokerError):
    """The broker failed through a fault of its own; the message names the reference in its log."""

    code = "internal"


class Gone(BrokerError):
    """The lease expired, was released or revoked."""

    code = "gone"


class LeaseGone(Gone):
    """The lease is over, and its value is wiped."""

    code = "lease_gone"


class LeaseExpired(LeaseGone):
    """The lease ran out before the broker could renew it; the client asks again while the block is open."""

    code = "lease_expired"


class LeaseRevoked(LeaseGone):
    """The broker took the lease back."""

    code = "lease_revoked"


class LeaseReleased(LeaseGone):
    """The lease was given back when its block was left."""

    code = "lease_released"


class LeaseDenied(LeaseGone):
    """The lease ended and the broker did not grant another."""

    code = "lease_denied"


class ConnectionLost(BrokerError):
    """There is no connection to the broker; the client reconnects on its own."""

    code = "connection_lost"


class TimedOut(ConnectionLost):
    """The broker did not answer within the deadline."""

    code = "timed_out"


class SessionRefused(BrokerError):
    """The broker will not have this session, so the client stops trying.

    `final` tells whether that holds for a client that had a session before, too.
    """

    code = "session_refused"
    final: ClassVar[bool] = True


class Unauthenticated(SessionRefused):
    """The broker did not accept the worker's proof; check worker name, key and registration."""

    code = "unauthenticated"


class Forbidden(SessionRefused):
    """The worker is disabled or expired, or its key was removed."""

    code = "forbidden"


class Superseded(SessionRefused):
    """The worker connected again elsewhere, and is registered for a single session."""

    code = "superseded"


class WrongCluster(SessionRefused):
    """The broker belongs to another cluster than the one expected; nothing was signed for it."""

    code = "wrong_cluster"


class NotABroker(SessionRefused):
    """The address answers, and is no broker; check the URL."""

    code = "not_a_broker"
    final = False


class UntrustedCertificate(SessionRefused):
    """The broker's certificate cannot be verified; check the host name and the CA."""

    code = "untrusted_certificate"
    final = False


class Closed(BrokerError):
    """The `connect` block was left."""

    code = "closed"


class NotText(BrokerError):
    """The token's value is not UTF-8 text; read `value_bytes`."""

    code = "not_text"


class BadAddress(BrokerError):
    """The URL is not the address of a broker."""

    code = "bad_address"


class PlaintextRefused(BadAddress):
    """The URL has no TLS and the host is not loopback; use wss, or insist with `insecure_plaintext`."""

    code = "plaintext_refused"


class BadKey(BrokerError):
    """The key file cannot be used."""

    code = "bad_key"


class KeyExposed(BadKey):
    """Others than its owner can reach the key file; make it private with chmod 600."""

    code = "key_exposed"


class ChangeRejected(BrokerError):
    """The app could not apply the change.

    An `on_change` handler raises this to tell the operator why: its message travels with the acknowledgement, cut to
    256 characters. Of any other exception only the type's name travels, for its message may hold the value.
    """

    code = "change_rejected"


ANSWERS: Final[dict[str, type[BrokerError]]] = {
    ErrorCode.BAD_REQUEST: BadRequest,
    ErrorCode.UNAUTHENTICATED: Unauthenticated,
    ErrorCode.DENIED: Denied,
    ErrorCode.NOT_FOUND: NotFound,
    ErrorCode.GONE: Gone,
    ErrorCode.RATE_LIMITED: RateLimited,
    ErrorCode.UNAVAILABLE: Unavailable,
    ErrorCode.INTERNAL: Internal,
}
"""What an error frame's code raises. A code that is not here raises BrokerError."""

CLOSES: Final[dict[int, type[SessionRefused]]] = {
    CloseCode.UNAUTHENTICATED: Unauthenticated,
    CloseCode.FORBIDDEN: Forbidden,
    CloseCode.SUPERSEDED: Superseded,
}
"""Close codes that end the client. After any other the client reconnects."""
