"""What HTTP can get wrong before a service is asked, each under the branch of the broker's tree it belongs to.

BadRequest
├── TooLarge             the body is over its bound
├── WrongMediaType       the body is not JSON
├── WrongMethod          the path is there, the method is not
├── BodyTooSlow          the body did not arrive in time
└── KeyReused            an Idempotency-Key that belongs to another request
NotFound
└── NoSuchPath           nothing is at this path
Conflict
└── ShownOnce            a repeated creation whose secret was shown already
Unavailable
└── NotInTime            the request was not finished in time
"""

from __future__ import annotations

from broker.errors import BadRequest, Conflict, NotFound, Unavailable


class TooLarge(BadRequest):
    """The body is longer than 1 MiB; send less at once."""

    code = "too_large"


class WrongMediaType(BadRequest):
    """The body must be JSON; send it with content-type: application/json."""

    code = "wrong_media_type"


class WrongMethod(BadRequest):
    """This path does not take this method; the allow header lists those it takes."""

    code = "wrong_method"

    def __init__(self, message: str | None = None, *, allowed: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.allowed = allowed


class BodyTooSlow(BadRequest):
    """The body did not arrive in time; send it again."""

    code = "body_too_slow"


class KeyReused(BadRequest):
    """This Idempotency-Key was used for another request; take a fresh key."""

    code = "key_reused"


class NoSuchPath(NotFound):
    """Nothing is at this path; /openapi.json lists what there is."""

    code = "no_such_path"


class ShownOnce(Conflict):
    """This request was carried out before, and its secret was shown then; it is not stored, so make another one."""

    code = "shown_once"


class NotInTime(Unavailable):
    """The request was not finished in time and may have been carried out or not; read before you repeat it."""

    code = "not_in_time"
