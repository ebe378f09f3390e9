"""Bodies about tokens whose values are made for each lease. None has a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from broker.admin.asked import ISSUED_MAX, NewIssuer
from broker.api.paging import PageQuery
from broker.api.views.common import Answer, Instant, Labels, Name, Request, TokenName

if TYPE_CHECKING:
    from storage.records import IssuedRecord, IssuerRecord

Bound = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": ISSUED_MAX})]
Texts = Annotated[dict[str, str], Meta(extra_json_schema={"maxProperties": 32})]


class IssuerPath(msgspec.Struct, frozen=True):
    """A token in a path: its slashes as they are, or as %2F."""

    token: TokenName


class IssuedPath(msgspec.Struct, frozen=True):
    """A lease in a path."""

    lease: str


class IssuedQuery(PageQuery, frozen=True, kw_only=True):
    """token: only what was made for leases of it."""

    token: str | None = None


class SetIssuer(Request, frozen=True, kw_only=True):
    """How the values of a token shall be made. credentials: tokens, by the issuer's names for them.

    Bounds that are left out stay, or are 100 in all and 10 of one worker.
    """

    issuer: str
    settings: Texts = msgspec.field(default_factory=dict)
    credentials: Texts = msgspec.field(default_factory=dict)
    leases_max: Bound | None = None
    worker_leases_max: Bound | None = None
    keyring: Name | None = None
    labels: Labels | None = None

    def new_issuer(self, token: str) -> NewIssuer:
        """What the service sets."""
        return NewIssuer(
            token=token,
            issuer=self.issuer,
            settings=self.settings,
            credentials=self.credentials,
            leases_max=self.leases_max,
            worker_leases_max=self.worker_leases_max,
            keyring=self.keyring,
            labels=self.labels,
        )


class Issuer(Answer, frozen=True, kw_only=True):
    """How the values of a token are made."""

    token: str
    issuer: str
    settings: dict[str, str]
    credentials: dict[str, str]
    leases_max: int
    worker_leases_max: int
    created_by: str
    created_at: Instant
    revision: int


class InstalledIssuers(Answer, frozen=True, kw_only=True):
    """The issuers that a replica has."""

    issuers: list[str]


class Issued(Answer, frozen=True, kw_only=True):
    """What exists upstream for a lease. ends_at: when it ends there by itself. ended_at: since when it is to be ended.

    next_at: when that is tried next. error: of the last attempt.
    """

    lease: str
    token: str
    worker: str
    issuer: str
    state: Literal["making", "live", "ending"]
    handle: dict[str, str]
    made_at: Instant
    ends_at: Instant | None
    ended_at: Instant | None
    next_at: Instant | None
    attempts: int
    error: str


def issuer_view(record: IssuerRecord) -> Issuer:
    """An issuer as answers show it."""
    return Issuer(
        token=record.token,
        issuer=record.issuer,
        settings=record.settings,
        credentials=record.credentials,
        leases_max=record.leases_max,
        worker_leases_max=record.worker_leases_max,
        created_by=record.created_by,
        created_at=record.created_at,
        revision=record.rev,
    )


def issued_view(record: IssuedRecord) -> Issued:
    """What was made, as answers show it."""
    return Issued(
        lease=record.lease,
        token=record.token,
        worker=record.worker,
        issuer=record.issuer,
        state=record.state,
        handle=record.handle,
        made_at=record.made_at,
        ends_at=record.ends_at,
        ended_at=record.ended_at,
        next_at=record.due_at if record.state == "ending" else None,
        attempts=record.attempt,
        error=record.error,
    )
