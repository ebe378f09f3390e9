"""Load a group of commands when it is asked for: `tokenbroker token list` must not pay for importing the broker."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Command(TyperCommand):
    """A command that does not repeat what it was given too much: a secret typed in the wrong place stays unshown."""

    allow_extra_args = True  # they are refused here, and not where they would be quoted

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options; what is left over is a usage error that says how many, not which."""
        beyond = super().parse_args(ctx, args)
        if beyond and not ctx.resilient_parsing:
            ctx.fail(
                f"too many arguments, by {len(beyond)}; secrets are read from standard input, a file or a variable"
            )
        return beyond


def discreet(app: typer.Typer) -> typer.Typer:
    """The application with every command in it made such a one."""
    for command in app.registered_commands:
        command.cls = Command
    for below in app.registered_groups:
        if below.typer_instance is not None:
            discreet(below.typer_instance)
    return app


class LazyGroup(TyperGroup):
    """A group whose commands are known by name; a list of them imports none.

    package: has a module named as the command, with a `typer.Typer` named `app`. says: for each, the first sentence of
    its help.
    """

    package: ClassVar[str] = ""
    says: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of help."""
        return list(self.says)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command or group of that name; None if there is none."""
        if cmd_name not in self.says:
            return None
        if cmd_name not in self.commands:
            app: typer.Typer = import_module(f"{self.package}.{cmd_name}").app
            command = get_command(discreet(app))
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names, each with as much of its sentence as fits, as the commands themselves would be shown."""
        limit = formatter.width - 6 - max(map(len, self.says))
        shown = [(name, TyperCommand(name, help=says).get_short_help_str(limit)) for name, says in self.says.items()]
        with formatter.section("Commands"):
            formatter.write_dl(shown)
