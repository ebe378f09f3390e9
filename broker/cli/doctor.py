"""`tokenbroker doctor`: look an installation over. What is looked at is `broker.doctor`."""

from __future__ import annotations

import asyncio
import sys

import typer
from rich.console import Console
from rich.text import Text

from broker.cli.failures import FAILED, printable
from broker.cli.logs import configure_logs
from broker.cli.operating import example
from broker.cli.options import Config, DataDir, Json
from broker.cli.output import Output
from broker.clock import SystemClock
from broker.doctor.examining import examine
from broker.doctor.findings import Finding
from broker.setup.layout import layout_of

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@app.command("doctor", epilog=example("tokenbroker doctor --config /etc/tokenbroker/broker.toml"))
def doctor(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Check configuration, permissions, storage, KMS, signed rows, audit log, clock and disk; say what to mend.

    May run beside a broker that serves; then nothing is written. Exit code 1 when a check failed.
    """
    if config is None and data_dir is None:
        raise typer.BadParameter("name a configuration (--config F) or the folder that `init` filled (--data-dir D)")
    configure_logs(level="error")
    findings = asyncio.run(examine(layout_of(data_dir=data_dir, config=config), SystemClock()))
    sound = all(finding.state != "failed" for finding in findings)
    if as_json:
        Output(json=True).fact({"ok": sound, "checks": findings})
    else:
        _print(findings)
    if not sound:
        raise typer.Exit(FAILED)


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True, file=sys.stdout)
    for finding in findings:
        line = Text.assemble((f"{finding.state:<8}", _STYLES[finding.state]), f"{finding.check:<19}")
        console.print(line.append(printable(finding.said)))
