"""`tokenbroker-worker exec`: a command that finds leased values in its environment.

An environment cannot be changed from outside. So a rotation is acknowledged as failed: the operator sees that this
command still has the value it started with. So is a revocation, unless --stop-on-revoke ends the command.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from contextlib import AsyncExitStack, suppress
from typing import Final

from tokenbroker_client.changes import Change, ChangeKind
from tokenbroker_client.command.output import say
from tokenbroker_client.command.reach import connect_with
from tokenbroker_client.errors import BadRequest, ChangeRejected

_FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_THE_KEYBOARD: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


def binding(text: str) -> tuple[str, str]:
    """Read `NAME=ENVVAR`. Raises ArgumentTypeError, whose message argparse shows."""
    token, _, variable = text.partition("=")
    if not token or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=ENVVAR, as github/ci=GITHUB_TOKEN")
    return token, variable


async def run(options: argparse.Namespace) -> int:
    """Lease, run, release. Returns the command's exit code, 128 + n when signal n ended it.

    A command that is not found gives 127, one that cannot be run 126, as shells have it. SIGINT, SIGQUIT, SIGTERM,
    SIGHUP, SIGUSR1 and SIGUSR2 are passed on; the first two not at a terminal, whose keyboard reaches the command
    without us. A signal before the command runs ends this process.
    """
    child = _Child(stop_on_revoke=options.stop_on_revoke)
    with suppress(asyncio.CancelledError):
        async with connect_with(options) as broker, AsyncExitStack() as leases:
            child.catch_signals()
            environment = dict(os.environ)
            for token, variable in options.tokens:
                lease = await leases.enter_async_context(
                    broker.lease(token, ttl_s=options.ttl, wait_s=options.in_line, on_change=child.changed)
                )
                environment[variable] = _as_variable(lease.value_bytes, token)
            return await child.run(options.command, environment)
    if child.ended_early_by is None:
        raise asyncio.CancelledError
    return 128 + child.ended_early_by


def _as_variable(value: bytes, token: str) -> str:
    if b"\0" in value:
        raise BadRequest(f"the value of {token} holds a NUL byte, which no environment variable can")
    return os.fsdecode(value)


class _Child:
    """The command, and what reaches it."""

    def __init__(self, *, stop_on_revoke: bool) -> None:
        self.ended_early_by: int | None = None
        self._stop_on_revoke = stop_on_revoke
        self._process: Process | None = None
        self._ours: asyncio.Task[object] | None = None

    def catch_signals(self) -> None:
        """Pass signals on from here; until the command runs, they end this process."""
        self._ours = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _FORWARDED:
            loop.add_signal_handler(number, self._forward, number)

    async def run(self, command: list[str], environment: dict[str, str]) -> int:
        """Run the command to its end."""
        try:
            self._process = await asyncio.create_subprocess_exec(*command, env=environment)
        except FileNotFoundError:
            say(f"{command[0]} is not found")
            return _NOT_FOUND
        except OSError as error:
            say(f"{command[0]} cannot be run: {error.strerror}")
            return _NOT_EXECUTABLE
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def changed(self, change: Change) -> None:
        """Tell what a change means for a command that runs."""
        if change.kind is ChangeKind.RESTORED:
            return
        if change.kind is ChangeKind.REVOKED and self._stop_on_revoke:
            say(f"{change.token} was revoked; stopping the command")
            self._send(signal.SIGTERM)
            if self._process is not None:
                await self._process.wait()
            return
        say(f"{change.token} was {change.kind}; the command keeps the value it was started with")
        raise ChangeRejected("a running command keeps the value it was started with")

    def _forward(self, number: signal.Signals) -> None:
        if self._process is None:
            self.ended_early_by = int(number)
            if self._ours is not None:
                self._ours.cancel()
        elif number not in _FROM_THE_KEYBOARD or not sys.stdin.isatty():
            self._send(number)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
