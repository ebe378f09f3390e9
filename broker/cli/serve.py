"""`tokenbroker serve`: run a broker in this process until it is told to stop. What a broker is, is in `broker.app`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
import uvloop

from broker.cli.core_dumps import forbid_core_dumps
from broker.cli.logs import configure_logs
from broker.cli.open_files import allow_open_files
from broker.cli.operating import example
from broker.cli.options import Config, DataDir
from broker.cli.output import write_line
from broker.cli.supervisor import Standing, tell_supervisor
from broker.exclusive import exclusive
from broker.serving import Reload
from broker.serving import serve as serve_broker
from broker.settings import ENV_PREFIX, Settings, load_settings
from broker.setup.layout import layout_of

log = structlog.get_logger()

KMS_KEYS: Final = f"{ENV_PREFIX}KMS__KEYS"

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_Listen = Annotated[
    str | None, typer.Option("--listen", metavar="HOST:PORT", help="Instead of server.listen; port 0 takes a free one.")
]
_AcceptLoss = Annotated[
    bool,
    typer.Option(
        "--accept-audit-loss",
        help="Start although audit entries are missing, or tables are older than the log says; that is recorded.",
    ),
]


@app.command("serve", epilog=example("tokenbroker serve --config /etc/tokenbroker/broker.toml"))
def serve(
    config: Config = None,
    data_dir: DataDir = None,
    listen: _Listen = None,
    accept_audit_loss: _AcceptLoss = False,
) -> None:
    """Serve workers and operators until SIGTERM or SIGINT, then let everything down in order; a second one ends it.

    SIGHUP reads the configuration again: KMS keys and keyrings change without a restart, or not at all; the log says.
    Prints one line `listening on URL` when it is ready, and tells systemd (Type=notify). Logs go to standard error.
    """
    if (config is None) == (data_dir is None):
        raise typer.BadParameter(
            "name either a configuration (--config F) or the folder that `init` filled (--data-dir D)"
        )
    forbid_core_dumps()
    allow_open_files()
    path = layout_of(data_dir=data_dir, config=config).config
    settings = _settings(path, listen)
    configure_logs(level=settings.log.level, style=settings.log.format)
    with exclusive(settings.storage.url), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_told(settings, lambda: _again(path, listen), accept_audit_loss=accept_audit_loss))


def _settings(config: Path, listen: str | None) -> Settings:
    settings = load_settings(config)
    if listen is None:
        return settings
    return settings.model_copy(update={"server": settings.server.model_copy(update={"listen": listen})})


def _again(config: Path, listen: str | None) -> Settings:
    if KMS_KEYS in os.environ:
        log.warning("kms_keys_stay", why=f"they come from {KMS_KEYS}, which changes with a restart only")
    return _settings(config, listen)


async def _until_told(settings: Settings, read: Callable[[], Settings], *, accept_audit_loss: bool) -> None:
    stop = asyncio.Event()
    reload = Reload(asked=asyncio.Event(), read=read)

    def told(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the operator insists: leave as a crash would, which the next start recovers
        stop.set()
        tell_supervisor(Standing.STOPPING)

    def ready(url: str) -> None:
        write_line(f"listening on {url}")
        tell_supervisor(Standing.READY)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    loop.add_signal_handler(signal.SIGHUP, reload.asked.set)
    await serve_broker(
        settings,
        stop=stop,
        ready=ready,
        reload=reload,
        accept_audit_loss=accept_audit_loss,
    )
