"""The reference of all commands, made from the commands themselves: what `--help` says, as a page."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from typer.core import TyperGroup
from typer.main import get_command

from broker.cli.main import app

_COLUMNS = 100


def cli_reference() -> str:
    """Markdown with a heading and the help text of every command, in the order of `tokenbroker --help`."""
    root = get_command(app)
    assert isinstance(root, TyperGroup), "the command of main is a group"
    return "\n".join(_sections(root, typer.Context(root, info_name="tokenbroker", terminal_width=_COLUMNS)))


def _sections(command: TyperGroup, context: typer.Context) -> Iterator[str]:
    yield from _section(command.get_help(context), context)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None, "a listed command exists"
        below = typer.Context(inner, info_name=name, parent=context, terminal_width=_COLUMNS)
        if isinstance(inner, TyperGroup):
            yield from _sections(inner, below)
        else:
            yield from _section(inner.get_help(below), below)


def _section(text: str, context: typer.Context) -> Iterator[str]:
    yield f"{'#' * (2 + context.command_path.count(' '))} `{context.command_path}`"
    yield ""
    yield "```text"
    yield from (line.rstrip() for line in text.splitlines())
    yield "```"
    yield ""
