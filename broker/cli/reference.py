"""The reference of all commands, made from the commands themselves: what `--help` says, as a page."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from typer.core import TyperGroup
from typer.main import get_command

from broker.cli.main import app

_COLUMNS = 100
_HEAD = """\
# The commands of `tokenbroker`

What `--help` says of each command. `init`, `serve`, `doctor`, `restore`, `recovery`, `demo`, `audit verify DIR` and
`audit check` work on this machine; all others speak to a running broker over HTTP.

- **Where**: `--url`, else `TOKENBROKER_URL`, else the profile's `url`, else `http://127.0.0.1:8420`. Plain HTTP to
  another machine is refused unless `TOKENBROKER_INSECURE_PLAINTEXT=1`.
- **Who**: the profile named by `--profile`, else the credential in `TOKENBROKER_ADMIN_TOKEN`, else the profile named by
  `TOKENBROKER_PROFILE`, else `profile.toml` in `--data-dir` or `TOKENBROKER_DATA_DIR`, else
  `~/.config/tokenbroker/profile.toml`. A profile that other users can read is refused.
- **Output**: facts on standard output (`--json`: one JSON document), messages and progress on standard error.
- **Exit codes**: 0 done · 1 refused or failed, with one line that says why · 2 usage · 3 verification failed.
- **Spans and times**: `90s`, `5m`, `1h`, `7d`; RFC 3339 with an offset, such as `2026-12-31T23:59:59Z`.
"""


def cli_reference() -> str:
    """Markdown with a heading and the help text of every command, in the order of `tokenbroker --help`."""
    root = get_command(app)
    assert isinstance(root, TyperGroup), "the command of main is a group"
    sections = _sections(root, typer.Context(root, info_name="tokenbroker", terminal_width=_COLUMNS))
    return "\n".join([_HEAD, *sections])


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
