"""Operations on admins, for admins."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import ADMINS, AUDITORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.admins import Admin, AdminPath, CreateAdmin, MintedAdmin, admin_view, minted_view
from broker.api.views.common import Listing
from storage.records import AdminRecord

_ALL: Final = "/v1/admins"
_ONE: Final = "/v1/admins/{admin}"


async def list_admins(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the admins."""
    pager = call.pager
    page = pager.cut(services.authority.admins)
    return Reply(body=Listing(items=[admin_view(record) for record in page.records], next=pager.next(page.next)))


async def show_admin(services: Services, call: Call[AdminPath, Nothing, Nothing]) -> Reply:
    """Show one admin."""
    return _admin(services.admins.get(call.path.admin))


async def create_admin(services: Services, call: Call[Nothing, Nothing, CreateAdmin]) -> Reply:
    """Make an admin, and show its credential this once."""
    minted = await services.admins.create(
        call.body.admin, roles=call.body.roles, expires_at=call.body.expires_at, actor=call.actor, once=call.once
    )
    return Reply(body=minted_view(minted), rev=minted.record.rev, location=_ONE.format(admin=minted.record.name))


async def replace_credential(services: Services, call: Call[AdminPath, Nothing, Nothing]) -> Reply:
    """Give an admin another credential, shown this once; the one before stops at once."""
    minted = await services.admins.replace_credential(
        call.path.admin, actor=call.actor, if_match=call.if_match, once=call.once
    )
    return Reply(body=minted_view(minted), rev=minted.record.rev)


async def disable_admin(services: Services, call: Call[AdminPath, Nothing, Nothing]) -> Reply:
    """Disable an admin. The last one who can administer stays."""
    return _admin(await services.admins.disable(call.path.admin, actor=call.actor, if_match=call.if_match))


async def enable_admin(services: Services, call: Call[AdminPath, Nothing, Nothing]) -> Reply:
    """Enable an admin again."""
    return _admin(await services.admins.enable(call.path.admin, actor=call.actor, if_match=call.if_match))


async def remove_admin(services: Services, call: Call[AdminPath, Nothing, Nothing]) -> Reply:
    """Remove an admin. The last one who can administer stays."""
    await services.admins.remove(call.path.admin, actor=call.actor, if_match=call.if_match)
    return Reply()


def _admin(record: AdminRecord) -> Reply:
    return Reply(body=admin_view(record), rev=record.rev)


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path=_ALL,
        operation="listAdmins",
        tag="admins",
        roles=AUDITORS,
        handler=list_admins,
        query_type=PageQuery,
        reply=Listing[Admin],
    ),
    Route(
        method="POST",
        path=_ALL,
        operation="createAdmin",
        tag="admins",
        roles=ADMINS,
        handler=create_admin,
        body_type=CreateAdmin,
        reply=MintedAdmin,
        status=201,
        creates=True,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showAdmin",
        tag="admins",
        roles=AUDITORS,
        handler=show_admin,
        path_type=AdminPath,
        reply=Admin,
    ),
    Route(
        method="DELETE",
        path=_ONE,
        operation="removeAdmin",
        tag="admins",
        roles=ADMINS,
        handler=remove_admin,
        path_type=AdminPath,
        status=204,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/disable",
        operation="disableAdmin",
        tag="admins",
        roles=ADMINS,
        handler=disable_admin,
        path_type=AdminPath,
        reply=Admin,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/enable",
        operation="enableAdmin",
        tag="admins",
        roles=ADMINS,
        handler=enable_admin,
        path_type=AdminPath,
        reply=Admin,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/credential",
        operation="replaceCredential",
        tag="admins",
        roles=ADMINS,
        handler=replace_credential,
        path_type=AdminPath,
        reply=MintedAdmin,
        status=201,
        creates=True,
        conditional=True,
    ),
)
