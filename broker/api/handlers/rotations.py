"""Operations on rotations. A token's policy and how far its rotation is stand under the token's name."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.rotations import (
    AbandonRotation,
    DryRun,
    Rotation,
    Rotators,
    RunRotation,
    SetRotation,
    dry_run_view,
    rotation_view,
)
from broker.api.views.tokens import TokenPath
from broker.rotation.terms import TRIED_CALL_S_MAX
from storage.records import RotationPolicyRecord

_ALL: Final = "/v1/rotations"
_ONE: Final = "/v1/rotations/{token}"


async def list_rotations(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the rotations."""
    pager = call.pager
    page = pager.cut(services.authority.rotation_policies)
    states = await services.rotations.book.states([policy.token for policy in page.records])
    items = [rotation_view(policy, states.get(policy.token)) for policy in page.records]
    return Reply(body=Listing(items=items, next=pager.next(page.next)))


async def list_rotators(services: Services, _call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """List the rotators that are installed."""
    return Reply(body=Rotators(rotators=list(services.rotations.rotators.installed)))


async def show_rotation(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Show how a token is rotated, and how far that is."""
    return await _shown(services, services.rotations.book.policy(call.path.token))


async def set_rotation(services: Services, call: Call[TokenPath, Nothing, SetRotation]) -> Reply:
    """Have a token rotated by itself; the policy that it has is replaced."""
    new = call.body.new_policy(call.path.token)
    return await _shown(services, await services.rotations.admin.set(new, actor=call.actor, if_match=call.if_match))


async def remove_rotation(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Rotate a token no more."""
    await services.rotations.admin.remove(call.path.token, actor=call.actor, if_match=call.if_match)
    return Reply()


async def pause_rotation(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Begin no rotation, and no further step of one."""
    paused = await services.rotations.admin.pause(call.path.token, actor=call.actor, if_match=call.if_match)
    return await _shown(services, paused)


async def resume_rotation(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Go on after a pause."""
    resumed = await services.rotations.admin.resume(call.path.token, actor=call.actor, if_match=call.if_match)
    return await _shown(services, resumed)


async def run_rotation(services: Services, call: Call[TokenPath, Nothing, RunRotation]) -> Reply:
    """Rotate now, or bring a stored version into use as a rotated one."""
    token = call.path.token
    await services.rotations.admin.run(token, version=call.body.version, actor=call.actor, once=call.once)
    return await _shown(services, services.rotations.book.policy(token))


async def run_rotation_again(services: Services, call: Call[TokenPath, Nothing, RunRotation], _made: str) -> Reply:
    """Show how far the rotation is that an earlier request of this key began."""
    return await _shown(services, services.rotations.book.policy(call.path.token))


async def abandon_rotation(services: Services, call: Call[TokenPath, Nothing, AbandonRotation]) -> Reply:
    """Give up a rotation whose value is not in use yet."""
    token = call.path.token
    await services.rotations.admin.abandon(token, force=call.body.force, actor=call.actor)
    return await _shown(services, services.rotations.book.policy(token))


async def try_rotation(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Make and try a value on the staging target, take it back, and change nothing in use."""
    tried = await services.rotations.dry_runs.run(call.path.token, actor=call.actor)
    return Reply(body=dry_run_view(call.path.token, tried))


async def _shown(services: Services, policy: RotationPolicyRecord) -> Reply:
    state = await services.rotations.book.state(policy.token)
    return Reply(body=rotation_view(policy, state), rev=policy.rev)


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path=_ALL,
        operation="listRotations",
        tag="rotations",
        roles=EVERYONE,
        handler=list_rotations,
        query_type=PageQuery,
        reply=Listing[Rotation],
    ),
    Route(
        method="GET",
        path="/v1/rotators",
        operation="listRotators",
        tag="rotations",
        roles=EVERYONE,
        handler=list_rotators,
        reply=Rotators,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/pause",
        operation="pauseRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=pause_rotation,
        path_type=TokenPath,
        reply=Rotation,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/resume",
        operation="resumeRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=resume_rotation,
        path_type=TokenPath,
        reply=Rotation,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/run",
        operation="runRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=run_rotation,
        path_type=TokenPath,
        body_type=RunRotation,
        reply=Rotation,
        creates=True,
        again=run_rotation_again,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/abandon",
        operation="abandonRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=abandon_rotation,
        path_type=TokenPath,
        body_type=AbandonRotation,
        reply=Rotation,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/dry-run",
        operation="tryRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=try_rotation,
        path_type=TokenPath,
        reply=DryRun,
        deadline_s=5 * TRIED_CALL_S_MAX,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showRotation",
        tag="rotations",
        roles=EVERYONE,
        handler=show_rotation,
        path_type=TokenPath,
        reply=Rotation,
    ),
    Route(
        method="POST",
        path=_ONE,
        operation="setRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=set_rotation,
        path_type=TokenPath,
        body_type=SetRotation,
        reply=Rotation,
        conditional=True,
    ),
    Route(
        method="DELETE",
        path=_ONE,
        operation="removeRotation",
        tag="rotations",
        roles=OPERATORS,
        handler=remove_rotation,
        path_type=TokenPath,
        status=204,
        conditional=True,
    ),
)
