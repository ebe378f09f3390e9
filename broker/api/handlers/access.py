"""Operations that look at access as a whole: reviewing it, and removing what nobody uses."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from broker.admin.errors import PreconditionFailed
from broker.admin.roles import AUDITORS, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.turns import Turn
from broker.api.views.access import (
    AccessPage,
    AccessQuery,
    AdminUse,
    Pruned,
    PruneGrants,
    access_view,
    admin_use_view,
    unused_view,
)
from broker.api.views.common import Listing
from broker.errors import NotFound

PRUNED_MAX: Final = 200
"""Most grants that one request removes: each is a commit of its own."""


async def review_access(services: Services, call: Call[Nothing, AccessQuery, Nothing]) -> Reply:
    """Review who may lease what: each worker with each of its grants, when it was last used, and what to look at."""
    pager, query = call.pager, call.query
    lines, following = await services.access.lines(query.terms(), after=pager.after, limit=pager.limit)
    page = AccessPage(
        items=[access_view(line) for line in lines if line.findings or not query.flagged],
        recorded_since=await services.access.since(),
        next=pager.next(following),
    )
    return Reply(body=page)


async def review_admins(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """Review the admins: their roles, and when each last asked for something."""
    pager = call.pager
    page = await services.access.admins(after=pager.after, limit=pager.limit)
    last = await services.access.last_uses(page.records)
    items = [admin_use_view(record, last.get(record.name)) for record in page.records]
    return Reply(body=Listing(items=items, next=pager.next(page.next)))


async def prune_grants(services: Services, call: Call[Nothing, Nothing, PruneGrants]) -> Reply:
    """Remove grants that nobody has used for long, or say which those are."""
    body = call.body
    found, following, since = await services.access.unused(
        timedelta(seconds=body.unused_s), after=body.after, limit=PRUNED_MAX
    )
    gone = []
    for use in found:
        if not body.dry_run:
            try:
                await services.grants.remove(use.grant.id, actor=call.actor, if_match=use.grant.rev)
            except (NotFound, PreconditionFailed):
                continue
        gone.append(unused_view(use))
    return Reply(body=Pruned(grants=gone, dry_run=body.dry_run, recorded_since=since, next=following))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/access/review",
        operation="reviewAccess",
        tag="access",
        roles=AUDITORS,
        handler=review_access,
        query_type=AccessQuery,
        reply=AccessPage,
        turn=Turn.SEARCH,
    ),
    Route(
        method="GET",
        path="/v1/access/admins",
        operation="reviewAdmins",
        tag="access",
        roles=AUDITORS,
        handler=review_admins,
        query_type=PageQuery,
        reply=Listing[AdminUse],
    ),
    Route(
        method="POST",
        path="/v1/grants/prune",
        operation="pruneGrants",
        tag="grants",
        roles=OPERATORS,
        handler=prune_grants,
        body_type=PruneGrants,
        reply=Pruned,
        deadline_s=120.0,
        turn=Turn.SEARCH,
    ),
)
