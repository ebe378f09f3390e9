"""Load a group of commands when it is asked for: `tokenbroker token list` must not pay for importing the broker."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command


class LazyGroup(TyperGroup):
    """A group whose commands are named with the modules that hold them; each module has a `typer.Typer` named `app`."""

    modules: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of help."""
        return list(self.modules)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command or group of that name; None if there is none."""
        module = self.modules.get(cmd_name)
        if module is None:
            return None
        if cmd_name not in self.commands:
            app: typer.Typer = import_module(module).app
            command = get_command(app)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]
