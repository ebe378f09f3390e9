"""Every command explains itself, and says on one line whatever goes wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from broker.cli.failures import one_line, report
from broker.cli.lazy import Command
from broker.cli.main import Commands, app
from broker.cli.reference import cli_reference
from broker.errors import BadRequest


def _commands(group: TyperGroup, context: typer.Context) -> list[tuple[str, Any]]:
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = typer.Context(command, info_name=name, parent=context)
        if isinstance(command, TyperGroup):
            found += _commands(command, inner)
        else:
            found.append((inner.command_path, command))
    return found


def _all() -> list[tuple[str, Any]]:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return _commands(root, typer.Context(root, info_name="tokenbroker"))


def test_every_command_has_help_and_an_example() -> None:
    """The help of each says what it does, and its example calls that very command."""
    commands = _all()
    assert len(commands) > 40
    for path, command in commands:
        assert command.help, path
        assert path in command.epilog, path


def test_the_list_of_commands_says_what_they_say() -> None:
    """Each line of the list is the first sentence of the command's own help, which is not loaded for it."""
    root = get_command(app)
    assert isinstance(root, Commands)
    context = typer.Context(root, info_name="tokenbroker")
    told = {name: root.get_command(context, name).get_short_help_str(1000) for name in root.list_commands(context)}
    assert told == root.says


def test_the_list_of_commands_loads_none() -> None:
    """`tokenbroker --help` is answered without the modules of the commands, and without HTTP or cryptography."""
    script = (
        "import sys; from broker.cli.main import app; app(['--help'], standalone_mode=False);"
        "heavy = [name for name in sys.modules if name in ('aiohttp', 'cryptography', 'pydantic', 'broker.cli.serve')];"
        "sys.exit(' '.join(heavy) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Say which workers and groups may lease which tokens." in ended.stdout


@pytest.mark.parametrize(
    "name", ["token", "rotation", "enrolment", "grant", "access", "issuer", "lease", "issued", "session", "admin"]
)
def test_commands_that_ask_a_broker_load_none_of_it(name: str) -> None:
    """What only a broker needs, or only a terminal, is not loaded for a command that asks one over HTTP."""
    script = (
        f"import sys, broker.cli.main, broker.cli.{name};"
        "heavy = ('broker.vault.vault', 'broker.authority.authority', 'pydantic', 'rich', 'structlog', 'uvloop');"
        "sys.exit(' '.join(module for module in heavy if module in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_no_option_takes_a_secret() -> None:
    """Arguments are seen by every user of a machine: no option is called value, secret, password or credential.

    One that names the token which holds a credential says that it does.
    """
    options = [parameter for _, command in _all() for parameter in command.params]
    names = {name for option in options for name in option.opts if option.metavar != "NAME=TOKEN"}
    assert not names & {"--value", "--secret", "--password", "--token-value", "--credential"}


@pytest.mark.parametrize(
    "line", [("token", "put", "a/b"), ("token", "list"), ("init",), ("grant", "add", "group:ci", "a/*"), ("demo",)]
)
def test_what_is_typed_too_much_is_not_shown_again(shell: Any, line: tuple[str, ...]) -> None:
    """A secret in the wrong place ends in a usage error that does not repeat it."""
    ran = shell.run(*line, "hunter2")
    assert ran.code == 2
    assert "too many arguments" in ran.err
    assert "hunter2" not in ran.out + ran.err


def test_no_command_repeats_what_it_was_given_too_much() -> None:
    """Every one is of the kind that does not."""
    assert [path for path, command in _all() if not isinstance(command, Command)] == []


def test_the_reference_has_every_command() -> None:
    """The generated page has a heading for each."""
    page = cli_reference()
    assert all(f"`{path}`\n" in page for path, _ in _all())


def test_help_and_an_unknown_command(shell: Any) -> None:
    """--help is no failure; a mistyped command is a usage error that names it."""
    assert "Example" in shell.ok("token", "put", "--help").out
    ran = shell.run("tokn")
    assert ran.code == 2
    assert "tokn" in ran.err


def test_the_module_and_the_entry_point_are_the_same(shell: Any) -> None:
    """Started by an interpreter of its own, the command does the same."""
    assert shell.run_afresh("--help").out == shell.ok("--help").out


def _break(text: str) -> None:
    raise RuntimeError(text)


def test_a_bug_is_one_line_that_quotes_nothing(capsys: Any) -> None:
    """An exception that nobody foresaw is told by its type and place; its text may hold a secret."""
    with pytest.raises(RuntimeError) as caught:
        _break("secret-canary")
    assert report(caught.value) == 1
    said = capsys.readouterr().err
    assert "RuntimeError at test_cli_help.py" in said
    assert "canary" not in said
    assert len(said.splitlines()) == 1


def test_failures_are_one_printable_line() -> None:
    """Line ends and control characters of a message, and groups of failures, become one line for a terminal."""
    group = ExceptionGroup("g", [BadRequest("a\nb\x1b[31m"), ExceptionGroup("h", [BadRequest("c"), BadRequest("c")])])
    assert one_line(group) == "a b?[31m; c"
