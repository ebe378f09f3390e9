"""Operations on leases and sessions: who holds what, who is connected, and the kill switch."""

from __future__ import annotations

from typing import Final

from broker.admin.instants import parse_instant
from broker.admin.roles import EVERYONE, OPERATORS
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.turns import Turn
from broker.api.views.common import Listing
from broker.api.views.leases import (
    Event,
    Lease,
    LeaseQuery,
    Revocation,
    RevokeLeases,
    Session,
    SessionQuery,
    TimelineQuery,
    event_view,
    lease_view,
    revocation_view,
    session_view,
)
from broker.errors import BadRequest
from broker.policy.names import parse_token_name, parse_worker_name


async def list_leases(services: Services, call: Call[Nothing, LeaseQuery, Nothing]) -> Reply:
    """List leases: live now, live at an instant, or all on record."""
    pager, query = call.pager, call.query
    if query.at is not None and query.all:
        raise BadRequest("at, all: send one of them; all on record is no matter of an instant")
    page = await services.leases.list_leases(
        token=None if query.token is None else parse_token_name(query.token),
        worker=None if query.worker is None else parse_worker_name(query.worker),
        at=None if query.at is None else parse_instant("at", query.at, services.clock.now()),
        include_ended=query.all,
        after=pager.after,
        limit=pager.limit,
    )
    return Reply(body=Listing(items=[lease_view(record) for record in page.records], next=pager.next(page.next)))


async def tell_leases(services: Services, call: Call[Nothing, TimelineQuery, Nothing]) -> Reply:
    """Tell what happened to the leases of a token or a worker, in order of time."""
    pager, query, now = call.pager, call.query, services.clock.now()
    told = await services.leases.timeline(
        token=None if query.token is None else parse_token_name(query.token),
        worker=None if query.worker is None else parse_worker_name(query.worker),
        since=None if query.since is None else parse_instant("from", query.since, now),
        until=None if query.until is None else parse_instant("to", query.until, now),
        after=pager.after,
        limit=pager.limit,
    )
    return Reply(body=Listing(items=[event_view(event) for event in told.events], next=pager.next(told.next)))


async def revoke_leases(services: Services, call: Call[Nothing, Nothing, RevokeLeases]) -> Reply:
    """Revoke a lease, or all of a token or a worker, and say who wiped."""
    body = call.body
    if sum(name is not None for name in (body.lease, body.token, body.worker)) != 1:
        raise BadRequest("lease, token, worker: send exactly one of them")
    if not body.reason.isprintable():
        raise BadRequest("reason: it has line breaks or control characters; write one line")
    report = await services.leases.revoke(
        lease=body.lease,
        token=None if body.token is None else parse_token_name(body.token),
        worker=None if body.worker is None else parse_worker_name(body.worker),
        reason=body.reason,
        actor=call.actor,
        wait_s=body.wait_s,
    )
    return Reply(body=revocation_view(report))


async def list_sessions(services: Services, call: Call[Nothing, SessionQuery, Nothing]) -> Reply:
    """List who is connected, newest first."""
    pager, query = call.pager, call.query
    found = await services.sessions.list_sessions(
        worker=None if query.worker is None else parse_worker_name(query.worker),
        include_ended=query.all,
        after=pager.after,
        limit=pager.limit,
    )
    items = [session_view(record, found.leases[record.session]) for record in found.page.records]
    return Reply(body=Listing(items=items, next=pager.next(found.page.next)))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/leases",
        operation="listLeases",
        tag="leases",
        roles=EVERYONE,
        handler=list_leases,
        query_type=LeaseQuery,
        reply=Listing[Lease],
        turn=Turn.SEARCH,
    ),
    Route(
        method="GET",
        path="/v1/leases/timeline",
        operation="tellLeases",
        tag="leases",
        roles=EVERYONE,
        handler=tell_leases,
        query_type=TimelineQuery,
        reply=Listing[Event],
        turn=Turn.SEARCH,
    ),
    Route(
        method="POST",
        path="/v1/leases/revoke",
        operation="revokeLeases",
        tag="leases",
        roles=OPERATORS,
        handler=revoke_leases,
        body_type=RevokeLeases,
        reply=Revocation,
        deadline_s=120.0,
    ),
    Route(
        method="GET",
        path="/v1/sessions",
        operation="listSessions",
        tag="sessions",
        roles=EVERYONE,
        handler=list_sessions,
        query_type=SessionQuery,
        reply=Listing[Session],
        turn=Turn.SEARCH,
    ),
)
