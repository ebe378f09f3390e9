"""A worker of the demo: leases one token through the client library and calls an API with it, again and again.

    python -m broker.demo.worker BROKER KEY_FILE TOKEN API

This is what an application does; it never asks for a token twice and keeps none, and it makes no call with what is no
key of this API: it says that it cannot use it, and waits for another one. It reports on standard output, a JSON
object a line, and ends when its standard input does. The line `again` there makes it try to lease once more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final

import aiohttp

from broker.demo.upstream import KEY_PREFIX, WORKER_HEADER
from tokenbroker_client import Broker, BrokerError, Change, ChangeKind, ChangeRejected, Lease, LeaseGone, connect

BETWEEN_CALLS_S: Final = 0.03
_CALL: Final = aiohttp.ClientTimeout(total=5.0)


def report(event: str, **facts: object) -> None:
    """Tell the demo what happened."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


async def work(broker_url: str, key_file: str, token: str, api: str) -> None:
    """Connect, lease, call; until standard input ends."""
    commands = await _standard_input()
    async with connect(broker_url, key=key_file) as broker, aiohttp.ClientSession(timeout=_CALL) as http:
        told = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(_lease_and_call(broker, token, http, api, told))
            while line := await commands.readline():
                if line.strip() == b"again":
                    await _try_again(broker, token)
            told.set()
            await calling


async def _lease_and_call(
    broker: Broker, token: str, http: aiohttp.ClientSession, api: str, told: asyncio.Event
) -> None:
    try:
        async with broker.lease(token) as lease:
            report("leased", version=lease.version)
            # Called after each change; once it has returned, the client acknowledges to the broker.
            lease.on_change(lambda change: _changed(change, lease))
            while not told.is_set():
                if (key := lease.value).startswith(KEY_PREFIX):
                    await _call(http, api, broker.worker, key)
                await asyncio.sleep(BETWEEN_CALLS_S)
    except LeaseGone as gone:
        report("stopped", why=type(gone).__name__)
    except (BrokerError, aiohttp.ClientError, TimeoutError) as error:
        report("failed", why=type(error).__name__)


def _changed(change: Change, lease: Lease) -> None:
    if change.kind is ChangeKind.ROTATED and not lease.value.startswith(KEY_PREFIX):
        report("rejected", version=lease.version)
        raise ChangeRejected("it is no key of this API")
    report("changed", kind=change.kind.value, version=lease.version)


async def _call(http: aiohttp.ClientSession, api: str, worker: str, value: str) -> None:
    headers = {"Authorization": f"Bearer {value}", WORKER_HEADER: worker}
    async with http.get(api, headers=headers) as response:
        await response.read()


async def _try_again(broker: Broker, token: str) -> None:
    try:
        async with broker.lease(token):
            report("again", leased=True)
    except BrokerError as error:
        report("again", leased=False, why=type(error).__name__)


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:5]))
