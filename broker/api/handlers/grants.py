"""Operations on grants."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import EVERYONE, OPERATORS
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.grants import (
    AddGrant,
    AskGrant,
    Grant,
    GrantPath,
    GrantQuery,
    GrantTest,
    explained_view,
    grant_view,
)
from storage.records import GrantRecord

_ALL: Final = "/v1/grants"
_ONE: Final = "/v1/grants/{grant}"


async def list_grants(services: Services, call: Call[Nothing, GrantQuery, Nothing]) -> Reply:
    """List the grants."""
    pager, subject = call.pager, call.query.subject
    page = pager.cut(grant for grant in services.authority.grants if subject in (None, grant.subject))
    return Reply(body=Listing(items=[grant_view(record) for record in page.records], next=pager.next(page.next)))


async def show_grant(services: Services, call: Call[GrantPath, Nothing, Nothing]) -> Reply:
    """Show one grant."""
    record = services.grants.get(call.path.grant)
    return Reply(body=grant_view(record), rev=record.rev)


async def add_grant(services: Services, call: Call[Nothing, Nothing, AddGrant]) -> Reply:
    """Allow a worker or a group to lease the tokens of a pattern."""
    return _made(await services.grants.add(call.body.new_grant(), actor=call.actor, once=call.once))


async def add_grant_again(services: Services, _call: Call[Nothing, Nothing, AddGrant], made: str) -> Reply:
    """Show the grant that an earlier request of this key added."""
    return _made(services.grants.get(made))


async def remove_grant(services: Services, call: Call[GrantPath, Nothing, Nothing]) -> Reply:
    """Remove a grant; leases that only it covered are revoked."""
    await services.grants.remove(call.path.grant, actor=call.actor, if_match=call.if_match)
    return Reply()


async def test_grant(services: Services, call: Call[Nothing, Nothing, AskGrant]) -> Reply:
    """Say which grant lets a worker lease a token, or why none does."""
    body = call.body
    explained = services.grants.test(worker=body.worker, token=body.token, source=body.source, previous=body.previous)
    return Reply(body=explained_view(explained))


def _made(record: GrantRecord) -> Reply:
    return Reply(body=grant_view(record), rev=record.rev, location=_ONE.format(grant=record.id))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path=_ALL,
        operation="listGrants",
        tag="grants",
        roles=EVERYONE,
        handler=list_grants,
        query_type=GrantQuery,
        reply=Listing[Grant],
    ),
    Route(
        method="POST",
        path=_ALL,
        operation="addGrant",
        tag="grants",
        roles=OPERATORS,
        handler=add_grant,
        body_type=AddGrant,
        reply=Grant,
        status=201,
        creates=True,
        again=add_grant_again,
    ),
    Route(
        method="POST",
        path=f"{_ALL}/test",
        operation="testGrant",
        tag="grants",
        roles=EVERYONE,
        handler=test_grant,
        body_type=AskGrant,
        reply=GrantTest,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showGrant",
        tag="grants",
        roles=EVERYONE,
        handler=show_grant,
        path_type=GrantPath,
        reply=Grant,
    ),
    Route(
        method="DELETE",
        path=_ONE,
        operation="removeGrant",
        tag="grants",
        roles=OPERATORS,
        handler=remove_grant,
        path_type=GrantPath,
        status=204,
        conditional=True,
    ),
)
