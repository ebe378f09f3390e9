"""Make a function that asks the broker into a command: every one takes --url, --profile, --data-dir and --json."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from broker.cli.client import AdminClient, open_client
from broker.cli.options import DataDir, Json
from broker.cli.output import Output
from broker.cli.reach import URL, find_reach

P = ParamSpec("P")
Work = Callable[Concatenate["Operator", P], Awaitable[None]]

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help=f"The broker, also {URL}.")]
ProfileFile = Annotated[
    Path | None, typer.Option("--profile", metavar="F", help="The profile with the credential, as `init` writes it.")
]
_SHARED = (
    inspect.Parameter("url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Url),
    inspect.Parameter("profile", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ProfileFile),
    inspect.Parameter("data_dir", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=DataDir),
    inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """What a command has in hand: the broker to ask, and where to print."""

    client: AdminClient
    out: Output


def group(help_text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=help_text, add_completion=False)


def example(*lines: str) -> str:
    """An epilog that shows how a command is used; its lines are not wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def operated(app: typer.Typer, name: str, *examples: str) -> Callable[[Work[P]], Work[P]]:
    """Add the function to `app` as the command `name`; its docstring is the help, `examples` stand below."""

    def add(function: Work[P]) -> Work[P]:
        app.command(name, epilog=example(*examples))(_command(function))
        return function

    return add


def ask(
    work: Callable[[Operator], Awaitable[None]],
    *,
    url: str | None,
    profile: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Find the broker and the credential, and carry `work` out to its end."""
    reach = find_reach(url=url, profile=profile, data_dir=data_dir, environ=os.environ, home=Path.home())

    async def run() -> None:
        async with open_client(reach) as client:
            await work(Operator(client=client, out=Output(json=as_json)))

    asyncio.run(run())


def _command(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The function with the shared options behind its own, running to its end in an event loop."""
    hints = get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    parameters = [each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY) for each in own]

    @functools.wraps(function)
    def command(*, url: str | None, profile: Path | None, data_dir: Path | None, as_json: bool, **rest: Any) -> None:
        ask(lambda operator: function(operator, **rest), url=url, profile=profile, data_dir=data_dir, as_json=as_json)

    shared = [*parameters, *_SHARED]
    command.__annotations__ = {each.name: each.annotation for each in shared}
    # typer reads this instead of the wrapper's own signature, and functools' link to the function is cut for it.
    command.__signature__ = inspect.Signature(shared)  # type: ignore[attr-defined]  # what inspect.signature looks for
    del command.__wrapped__
    return command
