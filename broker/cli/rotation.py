"""`tokenbroker rotation`: tokens that are rotated by themselves. docs/howto/rotate-automatically.md has the story."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Final

import typer

from broker.api.views.rotations import (
    AbandonRotation,
    DryRun,
    Rotation,
    Rotators,
    RunRotation,
    SetRotation,
)
from broker.cli.failures import FAILED, CommandFailed
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_pairs, read_span, span_seconds
from broker.cli.output import Column, note
from broker.cli.rollout import read_percent
from broker.cli.windows import read_window, show_window
from broker.policy.names import parse_token_name
from broker.rotation.rollouts import percent
from broker.rotation.terms import ABORT_ABOVE, BAKE_S, CALL_S, DEADLINE_S, OVERLAP_S, TRIED_CALL_S_MAX, WAIT_S
from broker.spans import show_span

app = group("Rotate tokens by themselves, and see how far that is.")

LOOK_S: Final = 0.5
"""How often --wait looks."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="The token.")]


@operated(
    app,
    "set",
    "tokenbroker rotation set web/session-key --rotator random --setting length=64 --every 30d",
    'tokenbroker rotation set crm/key --rotator command --setting program=/usr/local/bin/crm-key --cron "0 3 * * 1"',
    "tokenbroker rotation set db/app --rotator random --every 7d --canary 5% --then 50% --then 100% --wait 2m",
)
async def set_rotation(
    operator: Operator,
    *,
    name: Name,
    rotator: Annotated[str, typer.Option(metavar="R", help="Who makes the values; see `rotation rotators`.")],
    every: Annotated[
        timedelta | None, typer.Option(parser=read_span, metavar="SPAN", help="So often, from 1m on.")
    ] = None,
    cron: Annotated[str, typer.Option(metavar="EXPR", help="Or then, in UTC: minute hour day month weekday.")] = "",
    window: Annotated[
        list[str] | None, typer.Option(metavar="WINDOW", help='Begin only then, UTC: "mon-fri 02:00-05:00".')
    ] = None,
    setting: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Of the rotator; nothing secret.")] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TOKEN", help="The token that holds what the rotator signs in with."),
    ] = None,
    staging: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="What a dry run puts in a setting's place.")
    ] = None,
    staging_credential: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TOKEN", help="What a dry run signs in with.")
    ] = None,
    call: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="The longest one call of the rotator takes; 1m."),
    ] = None,
    overlap: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="The former version stays valid so long, at least; 10m."),
    ] = None,
    deadline: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="And at most, where somebody still uses it; 1h."),
    ] = None,
    canary: Annotated[
        int | None,
        typer.Option(parser=read_percent, metavar="SHARE", help="Roll out, to this share of the workers first."),
    ] = None,
    then: Annotated[
        list[str] | None, typer.Option(metavar="SHARE", help="To this share next; 100% at the end.")
    ] = None,
    wait: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="The longest wait for a share's answers; 2m."),
    ] = None,
    bake: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="Watch on so long when all have answered; 5s."),
    ] = None,
    abort_on_failed: Annotated[
        int | None, typer.Option(parser=read_percent, metavar="SHARE", help="Take it back if more of a share fail; 1%.")
    ] = None,
) -> None:
    """Have a token rotated by itself. A policy that it has is replaced as a whole.

    Without --every and --cron it is rotated by hand only, with `rotation run`. A token that has no value yet gets one
    at once.
    """
    if then and canary is None:
        raise typer.BadParameter("give the first share with --canary", param_hint="--then")
    body = SetRotation(
        rotator=rotator,
        settings=read_pairs(setting or [], "--setting"),
        credentials=read_pairs(credential or [], "--credential"),
        staging=read_pairs(staging or [], "--staging"),
        staging_credentials=read_pairs(staging_credential or [], "--staging-credential"),
        every_s=span_seconds(every),
        cron=cron,
        windows=tuple(map(read_window, window or ())),
        call_s=CALL_S if call is None else span_seconds(call) or 0,
        overlap_s=OVERLAP_S if overlap is None else span_seconds(overlap) or 0,
        deadline_s=DEADLINE_S if deadline is None else span_seconds(deadline) or 0,
        shares=() if canary is None else (canary, *map(read_percent, then or ())),
        wait_s=WAIT_S if wait is None else wait.total_seconds(),
        bake_s=BAKE_S if bake is None else bake.total_seconds(),
        abort_above=ABORT_ABOVE if abort_on_failed is None else abort_on_failed,
    )
    made = await operator.client.post(_path(name), Rotation, body, again=True)
    operator.out.fact(made, f"{made.token} is rotated by {made.rotator}: {_when(made)}")


@operated(app, "list", "tokenbroker rotation list")
async def list_rotations(operator: Operator) -> None:
    """List the tokens that are rotated by themselves; those that are stuck say why."""
    found = await operator.client.every("/v1/rotations", Rotation)
    operator.out.listing(
        found,
        found,
        Column("token", lambda each: each.token),
        Column("rotator", lambda each: each.rotator),
        Column("when", _when),
        Column("step", lambda each: each.state and each.state.step),
        Column("due", lambda each: each.state and each.state.due_at),
        Column("last", lambda each: each.state and each.state.last_at),
        Column("outcome", lambda each: each.state and each.state.last_outcome),
        Column("stuck since", lambda each: each.state and each.state.stuck_since),
        Column("error", lambda each: each.state and each.state.error),
        nothing="no token is rotated by itself yet; begin with `tokenbroker rotation set`",
    )


@operated(app, "show", "tokenbroker rotation show web/session-key")
async def show(operator: Operator, name: Name) -> None:
    """Show how a token is rotated, and how far that is."""
    found = await operator.client.get(_path(name), Rotation)
    operator.out.details(found, {**_policy_facts(found), **_state_facts(found)})


@operated(
    app,
    "run",
    "tokenbroker rotation run web/session-key --wait 5m",
    "tokenbroker rotation run crm/key --version 7",
)
async def run(
    operator: Operator,
    name: Name,
    version: Annotated[
        int | None,
        typer.Option(metavar="VERSION", min=1, help="Bring this stored version into use, instead of making one."),
    ] = None,
    wait: Annotated[
        timedelta | None, typer.Option(parser=read_span, metavar="SPAN", help="Wait so long for its end.")
    ] = None,
) -> None:
    """Rotate now, whatever the schedule says. With --wait, exit code 1 says that it has not finished well by then.

    With --version: what you stored with `token put --stage pending` is set upstream, tried, promoted, and what was
    before is finished, like a value that the rotator made.
    """
    begun = await operator.client.create(f"{_path(name)}/-/run", Rotation, RunRotation(version=version))
    if wait is None:
        operator.out.fact(begun, f"{name}: the rotation has begun; follow it with `tokenbroker rotation show {name}`")
        return
    ended = await _ended(operator, begun, wait)
    state = ended.state
    assert state is not None
    operator.out.fact(ended, f"{name}: {_told(ended)}")
    if state.step != "idle":
        note(
            f"it has not ended within {show_span(wait)} and goes on; follow it with `tokenbroker rotation show {name}`"
        )
    if state.step != "idle" or state.last_outcome != "finished":
        raise typer.Exit(FAILED)


@operated(app, "pause", "tokenbroker rotation pause web/session-key")
async def pause(operator: Operator, name: Name) -> None:
    """Begin no rotation, and no further step of one, until `rotation resume`."""
    paused = await operator.client.post(f"{_path(name)}/-/pause", Rotation)
    operator.out.fact(paused, f"the rotation of {name} is paused")


@operated(app, "resume", "tokenbroker rotation resume web/session-key")
async def resume(operator: Operator, name: Name) -> None:
    """Go on after a pause."""
    resumed = await operator.client.post(f"{_path(name)}/-/resume", Rotation)
    operator.out.fact(resumed, f"the rotation of {name} goes on: {_when(resumed)}")


@operated(app, "abandon", "tokenbroker rotation abandon web/session-key")
async def abandon(
    operator: Operator,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="End it where it stands, without a word to upstream.")] = False,
) -> None:
    """Give up a rotation whose value is not in use yet; its value is forgotten upstream."""
    abandoned = await operator.client.post(f"{_path(name)}/-/abandon", Rotation, AbandonRotation(force=force))
    operator.out.fact(abandoned, f"{name}: {_told(abandoned)}")


@operated(app, "remove", "tokenbroker rotation remove web/session-key")
async def remove(operator: Operator, name: Name) -> None:
    """Rotate the token no more. Its versions stay as they are."""
    await operator.client.delete(_path(name))
    operator.out.fact({"token": name, "removed": True}, f"{name} is rotated no more")


@operated(app, "dry-run", "tokenbroker rotation dry-run db/app")
async def dry_run(operator: Operator, name: Name) -> None:
    """Make a value on the staging target, set and try it there, and take it back. Nothing in use is changed.

    It is not resumed: if the broker dies meanwhile, what it made stays on the staging target.
    """
    wait_s = 4 * TRIED_CALL_S_MAX
    tried = await operator.client.post(f"{_path(name)}/-/dry-run", DryRun, wait_s=wait_s)
    operator.out.fact(tried, *(f"{each.step}: {each.error or 'ok'}" for each in tried.steps))
    if not tried.ok:
        raise typer.Exit(FAILED)


@operated(app, "rotators", "tokenbroker rotation rotators")
async def list_rotators(operator: Operator) -> None:
    """List the rotators that are installed."""
    found = await operator.client.get("/v1/rotators", Rotators)
    operator.out.fact(found, *found.rotators)


def _path(name: str) -> str:
    """Where its rotation is in the API. BadRequest: it is no token name, so it must not become a path."""
    return f"/v1/rotations/{parse_token_name(name)}"


async def _ended(operator: Operator, begun: Rotation, wait: timedelta) -> Rotation:
    """The rotation when it has ended, or the time is over; each step on the way is told."""
    shown, found = "", begun
    looks = int(wait.total_seconds() / LOOK_S) + 1
    for _ in range(looks):
        state = found.state
        if state is None or begun.state is None or state.rotation != begun.state.rotation:
            raise CommandFailed(f"the rotation of {begun.token} was replaced or removed meanwhile")
        if (now := _told(found)) != shown:
            shown = now
            note(f"{found.token}: {now}")
        if state.step == "idle":
            break
        await asyncio.sleep(LOOK_S)
        found = await operator.client.get(_path(begun.token), Rotation)
    return found


def _told(found: Rotation) -> str:
    """How far it is, in a few words."""
    state = found.state
    if state is None or not state.rotation:
        return "not rotated yet"
    if state.step == "idle":
        return f"{state.last_outcome}, version {state.last_version}" if state.last_version else state.last_outcome
    return f"{state.step}, attempt {state.attempt}" + (f": {state.error}" if state.error else "")


def _when(found: Rotation) -> str:
    if found.paused:
        return "paused"
    if found.every_s is not None:
        return f"every {show_span(timedelta(seconds=found.every_s))}"
    return f"cron {found.cron}" if found.cron else "by hand"


def _policy_facts(found: Rotation) -> dict[str, object]:
    windows = [show_window(each.days, each.start_min, each.end_min) for each in found.windows]
    return {
        "token": found.token,
        "rotator": found.rotator,
        "when": _when(found),
        "windows": windows,
        "settings": found.settings,
        "credentials": found.credentials,
        "staging": {**found.staging, **found.staging_credentials},
        "overlap": show_span(timedelta(seconds=found.overlap_s)),
        "deadline": show_span(timedelta(seconds=found.deadline_s)),
        "shares": [percent(each) for each in found.shares],
        "set by": found.created_by,
    }


def _state_facts(found: Rotation) -> dict[str, object]:
    state = found.state
    if state is None:
        return {}
    return {
        "step": state.step,
        "attempt": state.attempt,
        "due": state.due_at,
        "version": state.version or None,
        "former": state.former or None,
        "error": state.error,
        "stuck since": state.stuck_since,
        "value expires": state.value_expires_at,
        "last": state.last_at,
        "outcome": state.last_outcome,
        "still used by": [f"{each.worker} ({each.lease})" for each in state.unanswered],
    }
