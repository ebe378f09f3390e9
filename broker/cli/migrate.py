"""`tokenbroker migrate`: move a cluster to another database, while no broker runs. What is done is `broker.moving`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from broker.cli.core_dumps import forbid_core_dumps
from broker.cli.failures import VERIFICATION_FAILED, CommandFailed
from broker.cli.filling import progress_bar
from broker.cli.logs import configure_logs
from broker.cli.operating import example
from broker.cli.options import Config, DataDir, Json
from broker.cli.output import Output, note
from broker.clock import SystemClock
from broker.exclusive import database_file, exclusive
from broker.moving.filling import Filled, fill
from broker.moving.proving import Proof, open_prover
from broker.settings import Settings, load_settings
from broker.setup.layout import layout_of
from storage.catalog import open_storage, shown_url
from storage.records import RootRecord

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_From = Annotated[str, typer.Option("--from", metavar="URL", help="The database that is left; it is not changed.")]
_To = Annotated[
    str, typer.Option("--to", metavar="URL", help="The database that is moved to; empty, or half moved to.")
]
_StartOver = Annotated[
    bool, typer.Option("--start-over", help="Throw away what an earlier run has copied and not finished.")
]


@app.command(
    "migrate",
    epilog=example(
        "tokenbroker migrate --config /etc/tokenbroker/broker.toml \\",
        "    --from sqlite:////var/lib/tokenbroker/broker.db --to postgresql://tokenbroker_migrator@db1/tokenbroker",
    ),
)
def migrate(
    *,
    source: _From,
    target: _To,
    config: Config = None,
    data_dir: DataDir = None,
    start_over: _StartOver = False,
    as_json: Json = False,
) -> None:
    """Copy a whole cluster into an empty database and verify it, while no broker runs. Cut short, run it again.

    Every record is compared. With a configuration, the MACs of rows and tables and the audit log are verified as well,
    and one value of each data key and 100 more are opened; without one they are not. Until all is well no broker
    opens the target. Exit code 3: something is wrong with the copy, and it stays closed.
    """
    if config is not None and data_dir is not None:
        raise typer.BadParameter("name a configuration (--config F) or the folder that `init` filled (--data-dir D)")
    forbid_core_dumps()
    configure_logs(level="error")
    path = None if config is None and data_dir is None else layout_of(data_dir=data_dir, config=config).config
    settings = None if path is None else load_settings(path)
    _refuse_same(source, target)
    with exclusive(source), exclusive(target), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        filled, proof = runner.run(_migrate(source, target, settings, start_over=start_over))
    _tell(Output(json=as_json), filled, proof, source=source, target=target, config=path)
    if filled.problems:
        raise typer.Exit(VERIFICATION_FAILED)


async def _migrate(
    source_url: str, target_url: str, settings: Settings | None, *, start_over: bool
) -> tuple[Filled, Proof | None]:
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        source = await stack.enter_async_context(open_storage(source_url))
        if await source.get(RootRecord, ("root",)) is None:
            raise CommandFailed(f"{shown_url(source_url)} holds no cluster; check --from")
        if settings is None:
            return await fill(source, target_url, progress=progress, start_over=start_over), None
        prover = await stack.enter_async_context(open_prover(source, settings, clock=SystemClock(), progress=progress))
        filled = await fill(source, target_url, progress=progress, start_over=start_over, prove=prover.prove)
        return filled, prover.proof


def _refuse_same(source: str, target: str) -> None:
    """Return if the source can be there and the target is another database."""
    file, other = database_file(source), database_file(target)
    if file is not None and not file.is_file():
        raise CommandFailed(f"there is no database {file}; check --from")
    if source == target or (file is not None and other is not None and file.resolve() == other.resolve()):
        raise CommandFailed("--from and --to name the same database")


def _tell(out: Output, filled: Filled, proof: Proof | None, *, source: str, target: str, config: Path | None) -> None:
    total = sum(filled.records.values())
    document = {
        "ok": not filled.problems,
        "from": shown_url(source),
        "to": shown_url(target),
        "records": total,
        "tables": dict(filled.records),
        "verified": proof is not None,
        "audit_entries": None if proof is None else proof.audit_entries,
        "opened": None if proof is None else proof.opened,
        "passed_over": None if proof is None else proof.passed_over,
        "notes": [] if proof is None else list(proof.notes),
        "problems": list(filled.problems),
    }
    told = [f"{count:>10}  {table}" for table, count in filled.records.items() if count]
    told.append(f"{total} records are in {shown_url(target)}, each compared with the source")
    if proof is not None and not filled.problems:
        told.append(
            f"MACs of all rows and tables hold; {proof.audit_entries} audit entries verify; {proof.opened} values open"
        )
    out.fact(document, *told, *(f"problem: {problem}" for problem in filled.problems))
    for remark in _remarks(filled, proof, config):
        note(remark)


def _remarks(filled: Filled, proof: Proof | None, config: Path | None) -> list[str]:
    """What people should read, and do next, in that order."""
    remarks = []
    if proof is None:
        remarks.append(
            "NOT VERIFIED: no configuration was named, so no MAC and no signature was checked, and no value was opened"
        )
    elif proof.notes:
        remarks.append(f"the audit log of the source was not in order before: {'; '.join(proof.notes[:5])}")
    if proof is not None and proof.passed_over:
        remarks.append(f"{proof.passed_over} values were not opened: their KMS decides for each worker")
    if filled.problems:
        remarks.append("The copy is not served. Serve the source on; after mending, run this again with --start-over")
        return remarks
    file = config or Path("/etc/tokenbroker/broker.toml")
    return [
        *remarks,
        "Now, with every broker still stopped:",
        f"1. in {file}, [storage] url: name the new database, with the broker's own role",
        f"2. tokenbroker doctor --config {file}",
        f"3. tokenbroker serve --config {file}",
        "Never serve the old database again: what it grants, the new one does not know.",
    ]
