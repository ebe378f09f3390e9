"""What one operation of the API is: a row of data that routing, checking, OpenAPI and the reference are made from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import msgspec

from broker.admin.once import Once, nothing_beside
from broker.admin.roles import Role
from broker.api.paging import PageQuery, Pager
from broker.api.services import Services
from broker.api.turns import Turn
from broker.errors import BadRequest

P = TypeVar("P")
Q = TypeVar("Q")
B = TypeVar("B")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters, or no body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[P, Q, B]):
    """One request, checked. admin: who asks, "" where nobody has to be known. source: the peer's address.

    if_match: the revision named, 0 for "must not exist". once: what to commit beside a creation.
    """

    operation: str
    path: P
    query: Q
    body: B = field(repr=False)
    admin: str
    source: str
    if_match: int | None = None
    once: Once = nothing_beside

    @property
    def actor(self) -> str:
        """Who does it, as the audit log says it."""
        return f"admin:{self.admin}"

    @property
    def pager(self) -> Pager:
        """The paging of a list. BadRequest: see `Pager`."""
        if not isinstance(self.query, PageQuery):
            raise TypeError(f"{self.operation} is no list")
        return Pager(operation=self.operation, query=self.query)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a handler answers; the status is the route's. rev becomes the entity tag."""

    body: msgspec.Struct | None = field(default=None, repr=False)
    rev: int | None = None
    location: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """An answer that is too large for memory. `opened` gives its chunks, and is left when the last one is sent."""

    media_type: str
    filename: str
    opened: AbstractAsyncContextManager[AsyncIterator[bytes]] = field(repr=False)


Handler = Callable[[Services, Call[P, Q, B]], Awaitable[Reply | Stream]]
Again = Callable[[Services, Call[P, Q, B], str], Awaitable[Reply]]
Idempotency = Literal["none", "again", "shown_once"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Route(Generic[P, Q, B]):
    """roles: who may; None: everybody, unauthenticated. reply: the body's type, None without one (204).

    creates: takes an Idempotency-Key. again: shows what an earlier request of the same key made; None with `creates`:
    it made a secret, which is shown once. conditional: takes If-Match. media_type: set for streams.
    deadline_s: after so long the request is cut and answered `not_in_time`. turn: what it takes turns with.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    operation: str
    tag: str
    roles: frozenset[Role] | None
    handler: Handler[P, Q, B]
    path_type: type[P] = field(default=Nothing)  # type: ignore[assignment]  # P is Nothing where none is named
    query_type: type[Q] = field(default=Nothing)  # type: ignore[assignment]  # likewise
    body_type: type[B] = field(default=Nothing)  # type: ignore[assignment]  # likewise
    reply: Any = None
    status: int = 200
    creates: bool = False
    again: Again[P, Q, B] | None = None
    conditional: bool = False
    media_type: str | None = None
    deadline_s: float = 30.0
    turn: Turn | None = None

    @property
    def summary(self) -> str:
        """One line on what the operation does: its handler's docstring."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]

    @property
    def takes_body(self) -> bool:
        """Whether the request has a body."""
        return self.body_type is not Nothing


AnyRoute = Route[Any, Any, Any]
"""A row of the table, where rows of all types stand together; each row was checked where it was written."""


def convert_params(kind: type[P], given: dict[str, str], where: str) -> P:
    """Read path or query parameters, which are text, as their types. BadRequest: unknown, missing or malformed."""
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{where}: {error}") from None
