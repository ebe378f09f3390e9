"""Bodies about grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from broker.admin.asked import NewGrant
from broker.api.paging import PageQuery
from broker.api.views.common import Answer, Instant, Name, Request, TokenName
from storage.records.grants import Window

if TYPE_CHECKING:
    from broker.policy.explain import Explanation
    from storage.records import GrantRecord

Ttl = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 31 * 86_400})]


class GrantPath(msgspec.Struct, frozen=True):
    """A grant in a path."""

    grant: str


class GrantQuery(PageQuery, frozen=True, kw_only=True):
    """subject: only its grants, as worker:NAME or group:NAME."""

    subject: str | None = None


class WeeklyWindow(Request, frozen=True, kw_only=True):
    """A weekly time window in UTC. days: 1 (Monday) to 7. Minutes of the day; the end is outside."""

    days: list[int]
    start_min: int
    end_min: int


class AddGrant(Request, frozen=True, kw_only=True):
    """Who may lease what. TTLs left out: 5 minutes, and the larger of that and an hour. previous: that version too."""

    subject: str
    pattern: str
    ttl_s: Ttl | None = None
    max_ttl_s: Ttl | None = None
    expires_at: Instant | None = None
    source_cidrs: tuple[str, ...] = ()
    windows: tuple[WeeklyWindow, ...] = ()
    previous: bool = False

    def new_grant(self) -> NewGrant:
        """What the service adds."""
        return NewGrant(
            subject=self.subject,
            pattern=self.pattern,
            ttl_s=self.ttl_s,
            max_ttl_s=self.max_ttl_s,
            expires_at=self.expires_at,
            source_cidrs=self.source_cidrs,
            windows=[
                Window(days=tuple(window.days), start_min=window.start_min, end_min=window.end_min)
                for window in self.windows
            ],
            previous=self.previous,
        )


class AskGrant(Request, frozen=True, kw_only=True):
    """May this worker lease this token, from this address? previous: the previous version of it."""

    worker: Name
    token: TokenName
    source: str | None = None
    previous: bool = False


class GrantWindow(Answer, frozen=True, kw_only=True):
    """A weekly time window of a grant."""

    days: list[int]
    start_min: int
    end_min: int


class Grant(Answer, frozen=True, kw_only=True):
    """A grant."""

    grant: str
    subject: str
    pattern: str
    ttl_s: int
    max_ttl_s: int
    source_cidrs: list[str]
    windows: list[GrantWindow]
    previous: bool
    created_by: str
    created_at: Instant
    expires_at: Instant | None
    revision: int


class GrantTest(Answer, frozen=True, kw_only=True):
    """grant: the one that allows it, null when none does. lines: why, for people."""

    allowed: bool
    grant: str | None
    refusal: str | None
    lines: list[str]


def grant_view(record: GrantRecord) -> Grant:
    """A grant as answers show it."""
    return Grant(
        grant=record.id,
        subject=record.subject,
        pattern=record.pattern,
        ttl_s=record.ttl_s,
        max_ttl_s=record.max_ttl_s,
        source_cidrs=list(record.source_cidrs),
        windows=[
            GrantWindow(days=list(window.days), start_min=window.start_min, end_min=window.end_min)
            for window in record.windows
        ],
        previous=record.previous,
        created_by=record.created_by,
        created_at=record.created_at,
        expires_at=record.expires_at,
        revision=record.rev,
    )


def explained_view(explained: Explanation) -> GrantTest:
    """An explanation as answers show it."""
    decision = explained.decision
    return GrantTest(
        allowed=decision.allowed,
        grant=None if decision.grant is None else decision.grant.id,
        refusal=None if decision.refusal is None else decision.refusal.value,
        lines=list(explained.lines),
    )
