"""Operations on pools: tokens whose leases have the value of one of several members."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.pools import (
    DefinePool,
    Pool,
    PoolMember,
    PoolPath,
    PoolState,
    QuarantineMember,
    pool_view,
    state_view,
)
from storage.records import PoolRecord

_ONE: Final = "/v1/tokens/{token}/-/pool"


async def list_pools(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the pools."""
    pager = call.pager
    page = pager.cut(services.authority.pools)
    return Reply(body=Listing(items=[pool_view(record) for record in page.records], next=pager.next(page.next)))


async def show_pool(services: Services, call: Call[PoolPath, Nothing, Nothing]) -> Reply:
    """Show a pool: how its members do, who holds a place, who waits for one."""
    status = await services.pool_book.status(call.path.token)
    return Reply(body=state_view(status), rev=status.pool.rev)


async def define_pool(services: Services, call: Call[PoolPath, Nothing, DefinePool]) -> Reply:
    """Make a token a pool of these members, or change the pool that it is; one that is so already stays so."""
    new = call.body.new_pool(call.path.token)
    return _pool(await services.pools.define(new, actor=call.actor, if_match=call.if_match))


async def delete_pool(services: Services, call: Call[PoolPath, Nothing, Nothing]) -> Reply:
    """Delete a pool; its leases are revoked, its members stay. A bounded token is bounded no longer, and stays."""
    await services.pools.delete(call.path.token, actor=call.actor, if_match=call.if_match)
    return Reply()


async def add_member(services: Services, call: Call[PoolPath, Nothing, PoolMember]) -> Reply:
    """Add a member to a pool."""
    return _pool(
        await services.pools.add_member(call.path.token, call.body.member, actor=call.actor, if_match=call.if_match)
    )


async def remove_member(services: Services, call: Call[PoolPath, Nothing, PoolMember]) -> Reply:
    """Take a member out of a pool; leases that have its value are revoked."""
    return _pool(
        await services.pools.remove_member(call.path.token, call.body.member, actor=call.actor, if_match=call.if_match)
    )


async def quarantine_member(services: Services, call: Call[PoolPath, Nothing, QuarantineMember]) -> Reply:
    """Lease a member to nobody until it is released; leases that have its value go on."""
    body = call.body
    await services.pools.quarantine(call.path.token, body.member, reason=body.reason, actor=call.actor)
    return _pool(services.pools.get(call.path.token))


async def release_member(services: Services, call: Call[PoolPath, Nothing, PoolMember]) -> Reply:
    """Let a member that was quarantined, or rests, be leased again."""
    await services.pools.release(call.path.token, call.body.member, actor=call.actor)
    return _pool(services.pools.get(call.path.token))


def _pool(record: PoolRecord) -> Reply:
    return Reply(body=pool_view(record), rev=record.rev)


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/pools",
        operation="listPools",
        tag="pools",
        roles=EVERYONE,
        handler=list_pools,
        query_type=PageQuery,
        reply=Listing[Pool],
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showPool",
        tag="pools",
        roles=EVERYONE,
        handler=show_pool,
        path_type=PoolPath,
        reply=PoolState,
    ),
    Route(
        method="POST",
        path=_ONE,
        operation="definePool",
        tag="pools",
        roles=OPERATORS,
        handler=define_pool,
        path_type=PoolPath,
        body_type=DefinePool,
        reply=Pool,
        conditional=True,
    ),
    Route(
        method="DELETE",
        path=_ONE,
        operation="deletePool",
        tag="pools",
        roles=OPERATORS,
        handler=delete_pool,
        path_type=PoolPath,
        status=204,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/add-member",
        operation="addPoolMember",
        tag="pools",
        roles=OPERATORS,
        handler=add_member,
        path_type=PoolPath,
        body_type=PoolMember,
        reply=Pool,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/remove-member",
        operation="removePoolMember",
        tag="pools",
        roles=OPERATORS,
        handler=remove_member,
        path_type=PoolPath,
        body_type=PoolMember,
        reply=Pool,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/quarantine",
        operation="quarantinePoolMember",
        tag="pools",
        roles=OPERATORS,
        handler=quarantine_member,
        path_type=PoolPath,
        body_type=QuarantineMember,
        reply=Pool,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/release",
        operation="releasePoolMember",
        tag="pools",
        roles=OPERATORS,
        handler=release_member,
        path_type=PoolPath,
        body_type=PoolMember,
        reply=Pool,
    ),
)
