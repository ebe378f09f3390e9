"""`tokenbroker token rollout`: begin one, follow it, take it back. The watching itself is in `rollout_view`."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from broker.api.views.rollouts import Rollout, RolloutSummary, StartRollout
from broker.cli.failures import CommandFailed
from broker.cli.operating import Operator, operated
from broker.cli.options import read_span
from broker.cli.output import Column, note
from broker.cli.rollout_view import follow, say
from broker.policy.names import parse_token_name
from broker.rotation.rollouts import percent

_PERCENT: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?%")


class RolledBack(CommandFailed):
    """The version was taken back; `token rollout status` says why."""

    code = "rolled_back"


class RolloutCommands(TyperGroup):
    """`rollout NAME …` begins one. A token that is called as one of the commands is begun with `rollout start NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, else `start` with all of them."""
        if args[0] not in self.commands:
            args = ["start", *args]
        return super().resolve_command(ctx, args)


class RetireBefore(StrEnum):
    """When the version before is retired."""

    CONFIRMED = "confirmed"
    DEADLINE = "deadline"
    NEVER = "never"


def read_percent(text: str) -> int:
    """A part of the workers such as 5% or 0.5%, as parts of 10 000."""
    match = _PERCENT.fullmatch(text.strip())
    parts = -1 if match is None else int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    if not 0 <= parts <= 10_000:
        raise typer.BadParameter(f"{text[:40]!r} is no share; write a part of the workers, such as 5% or 0.5%")
    return parts


app = typer.Typer(
    cls=RolloutCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Give a version to a share of the workers at a time. `token rollout NAME --version N` begins.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Such as github/ci-bot.")]


@operated(
    app,
    "start",
    "tokenbroker token rollout github/ci-bot --version 4 --canary 5% --then 50% --then 100%",
    "tokenbroker token rollout start db/main --version 9 --wait 2m --abort-on-failed 1% --detach",
)
async def start(
    operator: Operator,
    *,
    name: Name,
    version: Annotated[
        int, typer.Option(metavar="N", min=1, help="The version; `token put --stage pending` makes one.")
    ],
    canary: Annotated[
        int | None,
        typer.Option(metavar="SHARE", parser=read_percent, help="The first step; without, all workers at once."),
    ] = None,
    then: Annotated[
        list[int] | None,
        typer.Option(metavar="SHARE", parser=read_percent, help="A further step; repeat it, and end with 100%."),
    ] = None,
    wait: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="The longest that a step waits for its holders: 2m."),
    ] = None,
    bake: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="How long it is watched on when all answered: 5s."),
    ] = None,
    abort_on_failed: Annotated[
        int | None,
        typer.Option(metavar="SHARE", parser=read_percent, help="More of a step's holders than this take it back: 1%."),
    ] = None,
    retire: Annotated[RetireBefore, typer.Option(help="When the version before is retired.")] = RetireBefore.CONFIRMED,
    deadline: Annotated[
        timedelta | None,
        typer.Option(
            parser=read_span,
            metavar="SPAN",
            help="With --retire deadline or never: so long after the last step, unless all confirmed: 1h.",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the broker goes on.")] = False,
) -> None:
    """Begin to roll a version out, and follow it to its end.

    A step gives the version to a share of the workers, always the same ones. When all who hold the token have applied
    it, the next step follows; after the last one the version is current. When too many fail, report it rejected, do not
    answer or break off, all is taken back by itself, and the exit code is 1. Ctrl-C ends only the following.
    """
    steps = [*(() if canary is None else (canary,)), *(then or ())]
    body = StartRollout(
        version=version,
        shares=tuple(steps) or (10_000,),
        wait_s=_seconds(wait, 120),
        bake_s=_seconds(bake, 5),
        abort_above=100 if abort_on_failed is None else abort_on_failed,
        retire=retire.value,
        deadline_s=_seconds(deadline, 3600),
    )
    begun = await operator.client.create(_path(name), Rollout, body)
    if detach:
        say(operator.out, begun)
        return
    await _to_its_end(operator, name, begun.rollout)


@operated(app, "status", "tokenbroker token rollout status github/ci-bot --watch")
async def status(
    operator: Operator,
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
) -> None:
    """Show the latest rollout of a token: how far it is, and who has not confirmed."""
    found = await operator.client.get(_path(name), Rollout)
    if watch:
        await _to_its_end(operator, name, found.rollout)
    else:
        say(operator.out, found)


@operated(app, "abort", "tokenbroker token rollout abort github/ci-bot")
async def abort(operator: Operator, name: Name) -> None:
    """Take a running rollout back; the workers that have the version get the current one again.

    One that only waits for confirmations is ended as it is, and the version before is not retired.
    """
    found = await operator.client.get(_path(name), Rollout)
    if found.ended_at is not None:
        note(f"the rollout of version {found.version} had ended already; nothing is changed")
    say(operator.out, await operator.client.post(f"{_path(name)}/abort", Rollout, again=True))


@operated(app, "list", "tokenbroker token rollout list")
async def list_rollouts(operator: Operator) -> None:
    """List the latest rollout of each token that had one."""
    found = await operator.client.every("/v1/rollouts", RolloutSummary)
    operator.out.listing(
        found,
        found,
        Column("token", lambda each: each.token),
        Column("version", lambda each: each.version),
        Column("state", lambda each: each.state),
        Column("share", lambda each: percent(each.share)),
        Column("began", lambda each: each.started_at),
        Column("by", lambda each: each.started_by),
        Column("ended", lambda each: each.ended_at),
        Column("reason", lambda each: each.reason),
        nothing="nothing was rolled out yet",
    )


async def _to_its_end(operator: Operator, name: str, rollout: str) -> None:
    ended = await follow(operator.client, _path(name), rollout)
    say(operator.out, ended)
    if ended.state == "rolled_back":
        raise RolledBack(f"{ended.token} version {ended.version} was taken back: {ended.reason}")


def _seconds(span: timedelta | None, default: float) -> float:
    return default if span is None else span.total_seconds()


def _path(name: str) -> str:
    return f"/v1/tokens/{parse_token_name(name)}/-/rollout"
