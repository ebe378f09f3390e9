"""`tokenbroker init`: make an installation. What it makes, and in which order, is `broker.setup`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.core_dumps import forbid_core_dumps
from broker.cli.logs import configure_logs
from broker.cli.operating import example
from broker.cli.options import Config, Json
from broker.cli.output import Output, note
from broker.clock import SystemClock
from broker.setup.initialising import Initialised, initialise
from broker.setup.layout import layout_of

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_Folder = Annotated[
    Path | None, typer.Option("--data-dir", metavar="D", help="The folder to fill; made with mode 700.")
]
_Passphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="F", help="Seal the fresh key file with the passphrase in F (mode 600)."),
]
_NewCredential = Annotated[
    bool, typer.Option("--new-credential", help="Give the first admin another credential, and write the profile anew.")
]


@app.command(
    "init",
    epilog=example(
        "tokenbroker init --data-dir ./dev-data", "tokenbroker init --config /etc/tokenbroker/broker.toml --json"
    ),
)
def init(
    data_dir: _Folder = None,
    config: Config = None,
    passphrase_file: _Passphrase = None,
    new_credential: _NewCredential = False,
    as_json: Json = False,
) -> None:
    """Make keys, database and the first admin; whatever is there already is kept, so it may be run again.

    With --data-dir alone it writes D/broker.toml. With --config F it uses the storage and KMS that F names, and
    writes cluster.id into F if it is not there; other files then go to D, or to the folder of F.
    """
    if data_dir is None and config is None:
        raise typer.BadParameter("name a folder (--data-dir D), a configuration (--config F), or both")
    if passphrase_file is not None and config is not None:
        raise typer.BadParameter("with --config, the key URI in the configuration names the passphrase file")
    forbid_core_dumps()
    configure_logs(level="error")
    done = asyncio.run(
        initialise(
            layout_of(data_dir=data_dir, config=config),
            own_config=config is not None,
            passphrase_file=passphrase_file,
            new_credential=new_credential,
            clock=SystemClock(),
        )
    )
    _tell(Output(json=as_json), done)


def _tell(out: Output, done: Initialised) -> None:
    config, profile = done.layout.config, done.profile
    document = {
        "cluster_id": done.cluster_id,
        "config": str(config),
        "profile": None if profile is None else str(profile),
        "audit_vkey": str(done.layout.audit_vkey),
    }
    width = max(len(step.what) for step in done.steps)
    out.fact(document, *(f"{step.what:<{width}}  {step.said}" for step in done.steps))
    if out.json:
        return
    note("")
    note(f"Next: tokenbroker serve --config {config}")
    if profile is not None:
        note(f"Then, in another shell: export TOKENBROKER_PROFILE={profile}")
