"""`tokenbroker restore`: put a backup where the configuration expects the database, while no broker runs.

A backup is an SQLite file, whatever database it is of, and goes into whatever database there is.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from broker.cli.failures import VERIFICATION_FAILED, CommandFailed
from broker.cli.filling import progress_bar
from broker.cli.logs import configure_logs
from broker.cli.operating import example
from broker.cli.options import Config, DataDir, Json
from broker.cli.output import Output, note
from broker.exclusive import database_file, exclusive
from broker.moving.filling import Filled, fill
from broker.settings import Settings, load_settings
from broker.setup.layout import layout_of
from storage.catalog import open_storage, shown_url
from storage.sqlite import restore_sqlite

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    "restore", epilog=example("tokenbroker restore tokenbroker-2026-11-22.backup --data-dir /var/lib/tokenbroker")
)
def restore(
    *,
    backup: Annotated[Path, typer.Argument(metavar="F", help="What `backup` wrote.")],
    config: Config = None,
    data_dir: DataDir = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="The database, instead of that of the configuration.")
    ] = None,
    start_over: Annotated[
        bool, typer.Option("--start-over", help="Throw away what an earlier run has put there and not finished.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify a backup and put it where storage.url says. Nothing is overwritten: move the old database away first.

    A backup of any database goes into any other, which must be empty if it is no file. Cut short, run it again.
    """
    if (config is None) == (data_dir is None):
        raise typer.BadParameter(
            "name either a configuration (--config F) or the folder that `init` filled (--data-dir D)"
        )
    configure_logs(level="error")
    path = layout_of(data_dir=data_dir, config=config).config
    settings = load_settings(path)
    url = to or settings.storage.url
    if not backup.is_file():
        raise CommandFailed(f"there is no backup {backup}")
    out = Output(json=as_json)
    target = database_file(url)
    if target is not None:
        with exclusive(url):
            restore_sqlite(backup, target)
        out.fact({"restored": str(target), "bytes": target.stat().st_size}, f"{target} is restored from {backup}")
    else:
        _fill(out, backup, url, settings, start_over=start_over)
    note(f"Look at it before it serves: tokenbroker doctor --config {path}")


def _fill(out: Output, backup: Path, url: str, settings: Settings, *, start_over: bool) -> None:
    """Load a verified copy of the backup into a database that is no file."""
    with (
        tempfile.TemporaryDirectory(prefix="tokenbroker-", dir=settings.storage.scratch) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        copy = Path(folder) / "copy.db"
        restore_sqlite(backup, copy)
        filled = runner.run(_filled(f"sqlite:///{copy}", url, start_over=start_over))
    records = sum(filled.records.values())
    shown = shown_url(url)
    document = {"restored": shown, "records": records, "problems": list(filled.problems)}
    if filled.problems:
        out.fact(document, *(f"problem: {problem}" for problem in filled.problems))
        note(f"{shown} stays closed; run this again with --start-over")
        raise typer.Exit(VERIFICATION_FAILED)
    out.fact(document, f"{shown} is restored from {backup}: {records} records, each compared")


async def _filled(source_url: str, target_url: str, *, start_over: bool) -> Filled:
    with progress_bar() as progress:
        async with open_storage(source_url) as source:
            return await fill(source, target_url, progress=progress, start_over=start_over)
