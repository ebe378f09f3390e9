"""What another process does to the database in the laws of `processes`: `python -m …second_process URL STORY NAME`.

Opens the URL as any process would, says on standard output, one JSON value a line, what was acknowledged, and goes on
until it is killed or its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from storage.catalog import open_storage
from storage.conformance.samples import following, lease
from storage.errors import Conflict, Unavailable
from storage.port import AuditAppend, Commit, Storage
from storage.records import LeaseRecord

CALLERS: Final = 5
"""Tasks that write at once in each process."""
PARTS: Final = 3
"""Leases of one commit of the story `write`."""
LOG: Final = 1
"""The audit log that every process appends to."""


async def count(storage: Storage, _name: str) -> None:
    """Count the record `lease(0)` up, one revision after another; says each revision that was won."""
    while True:
        record = await storage.get(LeaseRecord, lease(0).key)
        assert record is not None
        try:
            await storage.commit(Commit(updates=[following(record, acked_version=record.acked_version + 1)]))
        except Conflict:
            continue
        _say(record.rev + 1)


async def write(storage: Storage, name: str) -> None:
    """Commit leases, an audit entry and an announcement that all carry one label; says label, number and position."""
    for turn in range(10**6):
        label = f"{name}-{turn}"
        commit = Commit(
            inserts=[lease(0, lease=f"{label}-{part}", reason=label) for part in range(PARTS)],
            audit=AuditAppend(LOG, (label.encode(),)),
            announce=[("lease", (label,))],
        )
        done = await storage.commit(commit)
        _say([label, done.first_seq, done.position])


_STORIES: Mapping[str, Callable[[Storage, str], Awaitable[None]]] = {"count": count, "write": write}


async def _main(url: str, story: str, name: str) -> None:
    async with open_storage(url) as storage:
        loop = asyncio.get_running_loop()
        told_to_end = loop.run_in_executor(None, sys.stdin.read)
        callers = [loop.create_task(_persist(story, storage, f"{name}{n}")) for n in range(CALLERS)]
        await asyncio.wait((told_to_end, *callers), return_when=asyncio.FIRST_COMPLETED)
        for caller in callers:
            caller.cancel()
        for outcome in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome


async def _persist(story: str, storage: Storage, name: str) -> None:
    """Begin anew, under another name, after a time in which the database could not serve: another has locked it."""
    for life in range(10**6):
        try:
            await _STORIES[story](storage, f"{name}.{life}")
        except Unavailable:
            continue


def _say(acknowledged: object) -> None:
    os.write(1, f"{json.dumps(acknowledged)}\n".encode())  # one write: whole, also where the process is killed


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
