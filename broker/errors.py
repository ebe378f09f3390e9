"""What the broker can refuse, as one tree; every edge translates it by a table (wire code, HTTP status, exit code).

    BrokerError
    ├── BadRequest        out of a bound, or of the wrong shape
    ├── Unauthenticated   no proof of identity
    ├── Denied            proved, but not allowed
    ├── NotFound          no such thing
    ├── Gone              was there, has ended
    ├── Conflict          exists already, or changed since it was read
    ├── RateLimited       over a bound now; retry_after_s says when
    ├── Unavailable       storage or KMS cannot serve now; retry_after_s says when
    ├── Tampered          stored rows are not what this cluster wrote
    └── StartRefused      this configuration or data must not be served

Edges add nothing to the message: it names the thing, the limit and the remedy, and never holds a secret.
"""

from __future__ import annotations

from typing import ClassVar


class BrokerError(Exception):
    """The broker refused the request."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())

    @property
    def message(self) -> str:
        """The text for the one who asked."""
        return str(self.args[0])


class BadRequest(BrokerError):
    """The request is malformed or out of a bound."""

    code = "bad_request"


class Unauthenticated(BrokerError):
    """The identity was not proved."""

    code = "unauthenticated"


class Denied(BrokerError):
    """No live grant or role covers this."""

    code = "denied"


class NotFound(BrokerError):
    """There is no such thing."""

    code = "not_found"


class Gone(BrokerError):
    """It has expired, was released, revoked or used."""

    code = "gone"


class Conflict(BrokerError):
    """It exists already, or changed since it was read; read it again and retry."""

    code = "conflict"


class RateLimited(BrokerError):
    """Too many requests; wait before the next one."""

    code = "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(BrokerError):
    """Storage or KMS cannot serve now; retry later."""

    code = "unavailable"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Tampered(BrokerError):
    """A stored row is not what this cluster wrote; compare with a backup and the audit log."""

    code = "tampered"


class StartRefused(BrokerError):
    """This configuration or data must not be served."""

    code = "start_refused"
