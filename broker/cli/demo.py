"""`tokenbroker demo`: the whole story on a temporary broker. It is told by `broker.demo`."""

from __future__ import annotations

import asyncio
import signal

import typer
from rich.console import Console

from broker.cli.failures import FAILED
from broker.cli.logs import configure_logs
from broker.cli.operating import example
from broker.cli.output import note
from broker.clock import SystemClock
from broker.demo.narrator import Narrator
from broker.demo.story import play

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("demo", epilog=example("tokenbroker demo"))
def demo() -> None:
    """Show the whole story on a temporary broker of its own, in about 15 seconds; nothing is left behind.

    Seal a token, let three workers lease it, rotate it while they work, roll out a wrong one that takes itself back,
    revoke one worker, list who had what and verify the audit log. Exit code 0 only if every promise held.
    """
    configure_logs(level="error")
    try:
        held = asyncio.run(_play())
    except asyncio.CancelledError:
        note("stopped; the demo's broker is gone")
        raise typer.Exit(128 + signal.SIGINT) from None
    if not held:
        raise typer.Exit(FAILED)


async def _play() -> bool:
    playing = asyncio.current_task()
    assert playing is not None, "a coroutine runs in a task"
    loop = asyncio.get_running_loop()

    def told(number: int) -> None:
        # Once: a second one would cut off the ending of the processes, and they would stay.
        loop.add_signal_handler(number, lambda: None)
        playing.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    narrator = Narrator(console=Console(highlight=False, soft_wrap=True))
    verdict = await play(narrator, SystemClock().monotonic)
    return verdict.held
