"""Operations on tokens whose values are made for each lease, and on what was made."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.issuers import (
    InstalledIssuers,
    Issued,
    IssuedPath,
    IssuedQuery,
    Issuer,
    IssuerPath,
    SetIssuer,
    issued_view,
    issuer_view,
)

_ALL: Final = "/v1/issuers"
_ONE: Final = "/v1/tokens/{token}/-/issuer"
_ISSUED: Final = "/v1/issued"


async def list_issuers(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the tokens whose values are made for each lease."""
    pager = call.pager
    page = pager.cut(services.authority.issuers)
    return Reply(body=Listing(items=[issuer_view(record) for record in page.records], next=pager.next(page.next)))


async def list_installed(services: Services, _call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """List the issuers that this replica has."""
    return Reply(body=InstalledIssuers(issuers=list(services.issuers.installed())))


async def show_issuer(services: Services, call: Call[IssuerPath, Nothing, Nothing]) -> Reply:
    """Show how the values of a token are made."""
    record = services.issuers.get(call.path.token)
    return Reply(body=issuer_view(record), rev=record.rev)


async def set_issuer(services: Services, call: Call[IssuerPath, Nothing, SetIssuer]) -> Reply:
    """Have the values of a token made for each lease; the first time makes the token."""
    new = call.body.new_issuer(call.path.token)
    record = await services.issuers.set(new, actor=call.actor, if_match=call.if_match)
    return Reply(body=issuer_view(record), rev=record.rev)


async def list_issued(services: Services, call: Call[Nothing, IssuedQuery, Nothing]) -> Reply:
    """List what exists upstream for leases, and what is still to be ended there."""
    pager = call.pager
    page = await services.issuers.issued(token=call.query.token, after=pager.after, limit=pager.limit)
    return Reply(body=Listing(items=[issued_view(record) for record in page.records], next=pager.next(page.next)))


async def forget_issued(services: Services, call: Call[IssuedPath, Nothing, Nothing]) -> Reply:
    """Take what was made for an ended lease for gone, because somebody has seen to that upstream."""
    await services.issuers.forget(call.path.lease, actor=call.actor)
    return Reply()


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path=_ALL,
        operation="listIssuers",
        tag="issuers",
        roles=EVERYONE,
        handler=list_issuers,
        query_type=PageQuery,
        reply=Listing[Issuer],
    ),
    Route(
        method="GET",
        path=f"{_ALL}/installed",
        operation="listInstalledIssuers",
        tag="issuers",
        roles=EVERYONE,
        handler=list_installed,
        reply=InstalledIssuers,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showIssuer",
        tag="issuers",
        roles=EVERYONE,
        handler=show_issuer,
        path_type=IssuerPath,
        reply=Issuer,
    ),
    Route(
        method="POST",
        path=_ONE,
        operation="setIssuer",
        tag="issuers",
        roles=OPERATORS,
        handler=set_issuer,
        path_type=IssuerPath,
        body_type=SetIssuer,
        reply=Issuer,
        conditional=True,
    ),
    Route(
        method="GET",
        path=_ISSUED,
        operation="listIssued",
        tag="issuers",
        roles=EVERYONE,
        handler=list_issued,
        query_type=IssuedQuery,
        reply=Listing[Issued],
    ),
    Route(
        method="DELETE",
        path=f"{_ISSUED}/{{lease}}",
        operation="forgetIssued",
        tag="issuers",
        roles=OPERATORS,
        handler=forget_issued,
        path_type=IssuedPath,
        status=204,
    ),
)
