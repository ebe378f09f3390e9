"""Fill an empty database with another one's records, compare every one of them, and only then let it be opened.

The order makes a cut at any moment harmless: nothing opens the target before the last step, and the same call goes on
with what is there. MACs and signatures are `proving`'s; which databases, and who says so, is decided above.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from broker.errors import StartRefused
from broker.moving.samples import Samples
from broker.replicas.roll import WATCH_S
from storage.catalog import open_loading
from storage.copying import ORDER, compare, copy_records, fingerprint
from storage.port import COUNT_MAX, Loading, Storage
from storage.records import ReplicaRecord
from storage.table import Record

PROBLEMS_MAX: Final = 1000
"""Most problems that are listed; the first ones."""

Prove = Callable[[Storage, Samples], Awaitable[list[str]]]
"""Looks at the filled database; what is wrong with it."""


class Progress(Protocol):
    """What shows how far it has come."""

    def begin(self, what: str, *, total: int | None, done: int = 0) -> None:
        """Something begins that has so many steps, if that is known, of which some are done."""
        ...

    def advance(self, steps: int) -> None:
        """So many further steps are done."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """records: how many, by table. problems: what keeps the target from being opened; none: it may be served."""

    records: Mapping[str, int]
    problems: Sequence[str]


async def fill(
    source: Storage, target_url: str, *, progress: Progress, start_over: bool = False, prove: Prove | None = None
) -> Filled:
    """Copy `source` into the database that `target_url` names, compare, `prove`, and let it be opened if all is well.

    start_over: whatever an earlier, unfinished call has copied is thrown away. Cut short, the target stays unfinished.
    StartRefused: the source is served, or was changed meanwhile. storage's Refused: the target is not empty, or is
    another release's. Besides, what either database raises.
    """
    await refuse_served(source)
    print_before = await fingerprint(source)
    name = f"{print_before}, {secrets.token_hex(8)}" if start_over else print_before
    async with open_loading(target_url, name) as target:
        await _copy(source, target, progress)
        samples = Samples()
        filled = await _compare(source, target, progress, samples)
        if not filled.problems and prove is not None:
            filled = Filled(records=filled.records, problems=(await prove(target, samples))[:PROBLEMS_MAX])
        if filled.problems:
            return filled
        await refuse_served(source)
        if await fingerprint(source) != print_before:
            raise StartRefused("the source was served while it was copied; stop every broker, then run this again")
        await target.finish(await source.position())
    return filled


async def refuse_served(source: Storage) -> None:
    """Return if no replica serves the database. StartRefused: one does. Takes 3.5 s where one has not left in order."""
    before = await _standing(source)
    if not before:
        return
    await asyncio.sleep(WATCH_S)
    now = await _standing(source)
    moving = sorted(instance for instance, rev in now.items() if before.get(instance) != rev)
    if moving:
        raise StartRefused(f"the source is being served by {', '.join(moving)}; stop every broker first")


async def _standing(source: Storage) -> dict[str, int]:
    """The replicas that have not left, each with the revision that moves while it lives."""
    page = await source.select(ReplicaRecord)
    return {record.instance: record.rev for record in page.records if record.ended_at is None}


async def _copy(source: Storage, target: Loading, progress: Progress) -> None:
    begun: type[Record] | None = None
    totals = {kind: await _count(source, kind) for kind in ORDER}
    there = {kind: await _count(target, kind) or 0 for kind in ORDER}

    def told(kind: type[Record], count: int) -> None:
        nonlocal begun
        if kind is not begun:
            begun = kind
            progress.begin(f"copying {kind.table.name}", total=totals[kind], done=there[kind])
        progress.advance(count)

    await copy_records(source, target, told)


async def _compare(source: Storage, target: Loading, progress: Progress, samples: Samples) -> Filled:
    records: dict[str, int] = {}
    problems: list[str] = []
    for kind in ORDER:
        progress.begin(f"comparing {kind.table.name}", total=await _count(source, kind))

        def seen(record: Record) -> None:
            progress.advance(1)
            samples.see(record)

        found = await compare(source, target, kind, seen)
        records[found.table] = found.count
        problems += found.named
        if found.differing > len(found.named):
            problems.append(f"table {found.table}: {found.differing - len(found.named)} further differences")
    return Filled(records=records, problems=problems[:PROBLEMS_MAX])


async def _count(storage: Storage, kind: type[Record]) -> int | None:
    """How many records; None: too many to count."""
    count = await storage.count(kind, limit=COUNT_MAX)
    return None if count == COUNT_MAX else count
