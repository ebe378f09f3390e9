"""`tokenbroker-worker lease`: print a token's value, and with --hold each later one."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from tokenbroker_client.changes import Change, ChangeKind, Changes
from tokenbroker_client.command.output import say, tell_bytes, tell_json
from tokenbroker_client.command.reach import connect_with
from tokenbroker_client.lease import Lease
from tokenbroker_client.wire import encode_value


async def run(options: argparse.Namespace) -> int:
    """Lease, print, and release: at once, or with --hold after SIGINT or SIGTERM (exit 0) or a revocation (exit 1).

    The very bytes are printed. On a terminal, and with --hold, text has a newline after it. With --json each value is
    a document of its own line.
    """
    stop = asyncio.Event()
    if options.hold:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    async with (
        connect_with(options) as broker,
        broker.lease(options.token, ttl_s=options.ttl, stage=options.stage, wait_s=options.in_line) as lease,
    ):
        changes = lease.changes()
        _print(lease, as_json=options.json, lines=options.hold or sys.stdout.isatty())
        return await _hold(lease, changes, stop, as_json=options.json) if options.hold else 0


async def _hold(lease: Lease, changes: Changes, stop: asyncio.Event, *, as_json: bool) -> int:
    """Print each value as it comes, until told to stop."""
    while True:
        change = await _next(changes, stop)
        if change is None:
            return 0
        if change.kind is ChangeKind.REVOKED:
            say(f"the lease of {lease.token} was revoked{f': {change.reason}' if change.reason else ''}")
            return 1
        _print(lease, as_json=as_json, lines=True)


async def _next(changes: Changes, stop: asyncio.Event) -> Change | None:
    """Return the next change, or None when it is time to stop."""
    async with asyncio.TaskGroup() as tasks:
        stopped = tasks.create_task(stop.wait())
        changed = tasks.create_task(_first(changes))
        await asyncio.wait({stopped, changed}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        changed.cancel()
    if changed.cancelled():
        return None
    outcome = changed.result()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _first(changes: Changes) -> Change | Exception:
    """Return the next change, or what ended the changes: raising here would come out as a group."""
    try:
        return await anext(changes)
    except Exception as error:  # noqa: BLE001 - handed to the caller, who raises it
        return error


def _print(lease: Lease, *, as_json: bool, lines: bool) -> None:
    """lines: end text with a newline, for people and to tell values apart; else print the very bytes."""
    value = lease.value_bytes
    text, encoding = encode_value(value)
    if as_json:
        tell_json(
            {
                "token": lease.token,
                "version": lease.version,
                "stage": lease.stage,
                "value": text,
                "encoding": encoding,
                "content_type": lease.content_type,
                "ttl_s": round(lease.remaining_s, 3),
            }
        )
    elif lines and _is_text(value):
        tell_bytes(value + b"\n")
    else:
        tell_bytes(value)


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
