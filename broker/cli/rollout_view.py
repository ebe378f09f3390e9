"""How a rollout looks while it runs, on standard error, and what is said of it, on standard output."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from broker.api.views.rollouts import HolderName, Rollout
from broker.cli.client import AdminClient
from broker.cli.failures import CommandFailed
from broker.cli.output import Output, note, shown
from broker.rotation.rollouts import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LOOK_S: Final = 0.5
_NAMED_MAX: Final = 20
"""Holders of a kind that people are shown; a JSON document has more of them."""


class Overtaken(CommandFailed):
    """Another rollout of the token began meanwhile."""

    code = "overtaken"


class View(Protocol):
    """What shows how far it is."""

    def show(self, rollout: Rollout) -> None:
        """Say how far it is now."""
        ...


async def follow(client: AdminClient, path: str, rollout: str) -> Rollout:
    """Look at this rollout until it has ended; how it is then. Overtaken: the token has another one."""
    from rich.console import Console  # noqa: PLC0415 - as below

    with view_on(Console(stderr=True)) as view:
        while True:
            found = await client.get(path, Rollout)
            if found.rollout != rollout:
                raise Overtaken(f"token {found.token} has had another rollout since, of version {found.version}")
            view.show(found)
            if found.ended_at is not None:
                return found
            await asyncio.sleep(_LOOK_S)


def say(out: Output, rollout: Rollout) -> None:
    """The rollout as a document, or for people."""
    out.details(
        rollout,
        {
            "token": rollout.token,
            "version": f"{rollout.version}, before it {rollout.before}",
            "state": rollout.state.replace("_", " "),
            "step": f"{rollout.step + 1} of {len(rollout.shares)}, {percent(rollout.share)} of the workers",
            "holders": f"{rollout.holders}: " + ", ".join(_counts(rollout)),
            "began": f"{shown(rollout.started_at)} by {rollout.started_by}",
            "ended": rollout.ended_at,
            "reason": rollout.reason,
            **_names("failed", rollout.failed),
            **_names("silent", rollout.silent),
            **_names("lost", rollout.lost),
            **_names("unanswered", rollout.unanswered),
            **({"no word from": rollout.untold} if rollout.untold and rollout.ended_at is None else {}),
        },
    )


def _counts(rollout: Rollout) -> list[str]:
    """How its holders stand; of one that has ended, how they stood then."""
    sure = [f"{rollout.confirmed} confirmed", f"{rollout.failed_count} failed"]
    if rollout.ended_at is not None:
        return [*sure, f"{max(0, rollout.holders - rollout.confirmed - rollout.failed_count)} had not answered"]
    return [
        *sure,
        f"{rollout.silent_count} silent",
        f"{rollout.lost_count} lost",
        f"{rollout.waiting} waited for",
    ]


def _names(what: str, names: list[HolderName]) -> dict[str, str]:
    """One line for each holder, the first ones of many."""
    lines = {}
    for number, name in enumerate(names[:_NAMED_MAX], 1):
        until = f", its copy expires {shown(name.expires_at)}" if name.expires_at else ""
        lines[f"{what} {number}"] = f"{name.worker}, lease {name.lease}: {name.why}{until}"
    if len(names) > _NAMED_MAX:
        lines[f"{what} …"] = f"{len(names) - _NAMED_MAX} more; --json names them"
    return lines


class _Lines:
    """For what is no terminal: one line for each step."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def show(self, rollout: Rollout) -> None:
        """Say it once for each step."""
        at = (rollout.state, rollout.step)
        if at != self._last and rollout.ended_at is None:
            self._last = at
            note(f"{rollout.token} version {rollout.version}: {_doing(rollout)}")


@dataclass(slots=True)
class _Terminal:
    progress: Progress
    task: TaskID

    def show(self, rollout: Rollout) -> None:
        bad = rollout.failed_count + rollout.silent_count + rollout.lost_count
        self.progress.update(
            self.task,
            description=f"{rollout.token} version {rollout.version}: {_doing(rollout)}",
            completed=rollout.confirmed,
            total=max(1, rollout.holders),
            rest=f"{rollout.confirmed} of {rollout.holders} confirmed" + (f", {bad} did not" if bad else ""),
        )


def _doing(rollout: Rollout) -> str:
    if rollout.state == "confirming":
        return "current everywhere, waiting for the last confirmations"
    doing = "watching" if rollout.answered_at is not None else "step"
    return f"{doing} {rollout.step + 1}/{len(rollout.shares)}, {percent(rollout.share)} of the workers"


@contextmanager
def view_on(console: Console) -> Iterator[View]:
    """A bar if that is a terminal, else lines on standard error."""
    if not console.is_terminal:
        yield _Lines()
        return
    # Loading what draws takes long, and every command on tokens would wait for it.
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rest]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Terminal(progress, progress.add_task("", rest=""))
