"""Bodies about who may have what, and whether it is used."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from broker.admin.asked import AccessTerms, Finding
from broker.api.paging import PageQuery
from broker.api.views.common import Answer, Instant, Request
from broker.errors import BadRequest

if TYPE_CHECKING:
    from broker.admin.access import Access, GrantUse
    from storage.records import AdminRecord

DAY_S = 86_400
Span = Annotated[int, Meta(ge=0, le=3660 * DAY_S)]


class AccessQuery(PageQuery, frozen=True, kw_only=True):
    """What a review asks. unused_s, expiring_s: findings are made by these spans, 30 and 14 days if left out.

    worker, group, label (key=value): only such workers. third_party_label: workers with this label key are others'.
    flagged: only lines with a finding.
    """

    unused_s: Span = 30 * DAY_S
    expiring_s: Span = 14 * DAY_S
    worker: str | None = None
    group: str | None = None
    label: str | None = None
    third_party_label: str | None = None
    flagged: bool = False

    def terms(self) -> AccessTerms:
        """What the service asks. BadRequest: the label is not key=value."""
        label = None
        if self.label is not None:
            key, separator, value = self.label.partition("=")
            if not (key and separator):
                raise BadRequest("label: write key=value")
            label = (key, value)
        return AccessTerms(
            unused=timedelta(seconds=self.unused_s),
            expiring=timedelta(seconds=self.expiring_s),
            worker=self.worker,
            group=self.group,
            label=label,
            third_party=self.third_party_label,
        )


class AccessLine(Answer, frozen=True, kw_only=True):
    """One worker and one grant that applies to it, by itself or by a group; the grant's fields are null without one.

    last_used_at, last_token: when the worker last leased something by the grant, and what. last_connected_at: the last
    time at which the worker connected or its connection ended; connected: it is now. findings: what deserves a look.
    """

    worker: str
    groups: list[str]
    labels: dict[str, str]
    disabled: bool
    worker_expires_at: Instant | None
    last_connected_at: Instant | None
    connected: bool
    grant: str | None
    subject: str | None
    pattern: str | None
    ttl_s: int | None
    max_ttl_s: int | None
    created_by: str | None
    created_at: Instant | None
    expires_at: Instant | None
    last_used_at: Instant | None
    last_token: str | None
    findings: list[Finding]


class AccessPage(Answer, frozen=True, kw_only=True):
    """One page. recorded_since: since when uses are kept; before that nobody knows. next: as in every list."""

    items: list[AccessLine]
    recorded_since: Instant
    next: str | None


class AdminUse(Answer, frozen=True, kw_only=True):
    """An operator's account, and when its credential was last used."""

    admin: str
    roles: list[str]
    disabled: bool
    created_by: str
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None


class PruneGrants(Request, frozen=True, kw_only=True):
    """Remove grants that are at least so old and that nobody used for so long. dry_run: only say which.

    after: the grant that the page before ended with.
    """

    unused_s: Annotated[int, Meta(ge=DAY_S, le=3660 * DAY_S)]
    dry_run: bool
    after: Annotated[str, Meta(max_length=64)] | None = None


class UnusedGrant(Answer, frozen=True, kw_only=True):
    """A grant that nobody used for long. last_used_at: null for never, as far as is known."""

    grant: str
    subject: str
    pattern: str
    created_by: str
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None


class Pruned(Answer, frozen=True, kw_only=True):
    """The grants of one page: removed, or, in a dry run, unused. next: what follows them is asked for with; or null."""

    grants: list[UnusedGrant]
    dry_run: bool
    recorded_since: Instant
    next: str | None


def access_view(access: Access) -> AccessLine:
    """A line as answers show it."""
    worker, grant, used, seen = access.worker, access.grant, access.used, access.seen
    return AccessLine(
        worker=worker.name,
        groups=list(worker.groups),
        labels=worker.labels,
        disabled=worker.disabled,
        worker_expires_at=worker.expires_at,
        last_connected_at=None if seen is None else seen.last_at,
        connected=access.connected,
        grant=None if grant is None else grant.id,
        subject=None if grant is None else grant.subject,
        pattern=None if grant is None else grant.pattern,
        ttl_s=None if grant is None else grant.ttl_s,
        max_ttl_s=None if grant is None else grant.max_ttl_s,
        created_by=None if grant is None else grant.created_by,
        created_at=None if grant is None else grant.created_at,
        expires_at=None if grant is None else grant.expires_at,
        last_used_at=None if used is None else used.last_at,
        last_token=None if used is None else used.last_token,
        findings=list(access.findings),
    )


def admin_use_view(record: AdminRecord, last_used_at: Instant | None) -> AdminUse:
    """An account as a review shows it."""
    return AdminUse(
        admin=record.name,
        roles=list(record.roles),
        disabled=record.disabled,
        created_by=record.created_by,
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used_at=last_used_at,
    )


def unused_view(use: GrantUse) -> UnusedGrant:
    """A grant as pruning shows it."""
    grant = use.grant
    return UnusedGrant(
        grant=grant.id,
        subject=grant.subject,
        pattern=grant.pattern,
        created_by=grant.created_by,
        created_at=grant.created_at,
        expires_at=grant.expires_at,
        last_used_at=use.last_at,
    )
