"""Operations on rollouts: give a version to a share of the workers after the other, watch that, take it back."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.rollouts import Rollout, RolloutSummary, StartRollout, rollout_view, summary_view
from broker.api.views.tokens import TokenPath
from broker.errors import Gone

_ONE: Final = "/v1/tokens/{token}/-/rollout"


async def start_rollout(services: Services, call: Call[TokenPath, Nothing, StartRollout]) -> Reply:
    """Begin to roll a version out."""
    token = call.path.token
    await services.rollouts.start(token, call.body.wanted(), actor=call.actor, if_match=call.if_match, once=call.once)
    return await _shown(services, token)


async def start_rollout_again(services: Services, call: Call[TokenPath, Nothing, StartRollout], made: str) -> Reply:
    """Show the rollout that an earlier request of this key began."""
    record, _ = await services.rollouts.status(call.path.token)
    if record.id != made:
        raise Gone(f"the rollout that this key began has ended, and token {call.path.token} has had another since")
    return await _shown(services, call.path.token)


async def show_rollout(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Show the latest rollout of a token, and what its holders said."""
    return await _shown(services, call.path.token)


async def abort_rollout(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Take a rollout back, or end its waiting for confirmations."""
    await services.rollouts.abort(call.path.token, actor=call.actor, if_match=call.if_match)
    return await _shown(services, call.path.token)


async def list_rollouts(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the latest rollout of each token that had one."""
    pager = call.pager
    page = await services.rollouts.rollouts(after=pager.after, limit=pager.limit)
    return Reply(body=Listing(items=[summary_view(record) for record in page.records], next=pager.next(page.next)))


async def _shown(services: Services, token: str) -> Reply:
    return Reply(body=rollout_view(await services.rollouts.status(token)))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/rollouts",
        operation="listRollouts",
        tag="rollouts",
        roles=EVERYONE,
        handler=list_rollouts,
        query_type=PageQuery,
        reply=Listing[RolloutSummary],
    ),
    Route(
        method="POST",
        path=_ONE,
        operation="startRollout",
        tag="rollouts",
        roles=OPERATORS,
        handler=start_rollout,
        path_type=TokenPath,
        body_type=StartRollout,
        reply=Rollout,
        status=201,
        creates=True,
        again=start_rollout_again,
        conditional=True,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showRollout",
        tag="rollouts",
        roles=EVERYONE,
        handler=show_rollout,
        path_type=TokenPath,
        reply=Rollout,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/abort",
        operation="abortRollout",
        tag="rollouts",
        roles=OPERATORS,
        handler=abort_rollout,
        path_type=TokenPath,
        reply=Rollout,
        conditional=True,
    ),
)
