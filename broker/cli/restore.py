"""`tokenbroker restore`: put a backup where the configuration expects the database, while no broker runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.failures import CommandFailed
from broker.cli.operating import example
from broker.cli.options import Config, DataDir, Json
from broker.cli.output import Output, note
from broker.exclusive import database_file, exclusive
from broker.settings import load_settings
from broker.setup.layout import layout_of
from storage.sqlite import restore_sqlite

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    "restore", epilog=example("tokenbroker restore tokenbroker-2026-11-22.backup --data-dir /var/lib/tokenbroker")
)
def restore(
    backup: Annotated[Path, typer.Argument(metavar="F", help="What `backup` wrote.")],
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Verify a backup and put it where storage.url says. Nothing is overwritten: move the old database away first."""
    if (config is None) == (data_dir is None):
        raise typer.BadParameter(
            "name either a configuration (--config F) or the folder that `init` filled (--data-dir D)"
        )
    path = layout_of(data_dir=data_dir, config=config).config
    settings = load_settings(path)
    target = database_file(settings.storage.url)
    if target is None:
        raise CommandFailed("storage.url names no SQLite file; restore this database with its own tools")
    if not backup.is_file():
        raise CommandFailed(f"there is no backup {backup}")
    with exclusive(settings.storage.url):
        restore_sqlite(backup, target)
    out = Output(json=as_json)
    out.fact({"restored": str(target), "bytes": target.stat().st_size}, f"{target} is restored from {backup}")
    note(f"Look at it before it serves: tokenbroker doctor --config {path}")
