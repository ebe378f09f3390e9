"""`tokenbroker key rewrap`: ask for bounded batches until nothing is left, and say how far it has come.

What is left shows at the broker alone, so a command that was killed is simply run again. What a batch does, and how
fast at most, is the broker's business.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from broker.api.views.keys import (
    Keyring,
    Reseal,
    ResealDone,
    ResealFailed,
    ResealPlace,
    Rewrap,
    RewrapDone,
    RewrapFailed,
)
from broker.cli.client import AdminClient
from broker.policy.names import parse_keyring_name

ROOT: Final = "(root key)"
FAILED_MAX: Final = 1000
"""Failures of one kind that are kept to be told; all are counted."""
ESTIMATE_AFTER_S: Final = 3.0
"""Before so long, a rate says little about the rest."""
_BATCHES_A_S: Final = 4
_BATCH_MAX: Final = 100


class Total(msgspec.Struct, kw_only=True):
    """What became of one keyring, or of the root key. remaining: what is still under former data keys, at least."""

    keyring: str
    rewrapped: int = 0
    values: int = 0
    remaining: int = 0
    failed: int = 0
    failures: list[RewrapFailed | ResealFailed] = msgspec.field(default_factory=list)

    def fail(self, failures: list[RewrapFailed] | list[ResealFailed]) -> None:
        """Count them, and keep the first ones."""
        self.failed += len(failures)
        self.failures += failures[: max(0, FAILED_MAX - len(self.failures))]


class Bar(Protocol):
    """What shows the progress."""

    def show(self, what: str, *, done: int, left: int, counted_all: bool) -> None:
        """Say how far it has come. counted_all: whether `left` is the number, or the least that it is."""
        ...


async def rewrap(client: AdminClient, keyring: str | None, *, values: bool, rate_per_s: int) -> list[Total]:
    """Rewrap a keyring, or all of them and the root key; with `values`, reseal what is under former data keys too."""
    names = [keyring] if keyring is not None else sorted(r.keyring for r in await client.every("/v1/keyrings", Keyring))
    totals = [Total(keyring=parse_keyring_name(name)) for name in names]
    with _bar() as bar:
        for total in totals:
            await _rewrap_keyring(client, total, bar)
            if values:
                await _reseal_keyring(client, total, bar, rate_per_s)
        if keyring is None:
            done = await client.post("/v1/root/rewrap", RewrapDone, again=True)
            totals.append(Total(keyring=ROOT, rewrapped=len(done.rewrapped)))
            totals[-1].fail(done.failed)
    return totals


async def _rewrap_keyring(client: AdminClient, total: Total, bar: Bar) -> None:
    after: str | None = None
    while True:
        done = await client.post(f"/v1/keyrings/{total.keyring}/rewrap", RewrapDone, Rewrap(after=after), again=True)
        total.rewrapped += len(done.rewrapped)
        total.fail(done.failed)
        bar.show(f"{total.keyring}: data keys", done=total.rewrapped, left=done.remaining, counted_all=True)
        after = done.next
        if after is None:
            return


async def _reseal_keyring(client: AdminClient, total: Total, bar: Bar, rate_per_s: int) -> None:
    """Walk from the first row to the last, again while a walk left rows that it could have moved."""
    limit = max(1, min(_BATCH_MAX, rate_per_s // _BATCHES_A_S))
    before = total.failed, list(total.failures)
    while True:
        total.failed, total.failures = before[0], list(before[1])
        moved, failed = await _walk(client, total, bar, Reseal(limit=limit, rate_per_s=rate_per_s))
        if total.remaining <= failed or not moved:
            return


async def _walk(client: AdminClient, total: Total, bar: Bar, ask: Reseal) -> tuple[int, int]:
    """One walk; how many values it moved, and how many it could not."""
    after: ResealPlace | None = None
    moved = failed = 0
    while True:
        done = await client.post(
            f"/v1/keyrings/{total.keyring}/reseal", ResealDone, msgspec.structs.replace(ask, after=after), again=True
        )
        moved += done.values
        failed += len(done.failed)
        total.values += done.values
        total.remaining = done.remaining
        total.fail(done.failed)
        bar.show(f"{total.keyring}: values", done=total.values, left=done.remaining, counted_all=done.counted_all)
        after = done.next
        if after is None:
            return moved, failed


class _Silent:
    def show(self, what: str, *, done: int, left: int, counted_all: bool) -> None:
        """Say nothing."""


@dataclass(slots=True)
class _Terminal:
    progress: Progress
    tasks: dict[str, tuple[TaskID, float, int]] = field(default_factory=dict)

    def show(self, what: str, *, done: int, left: int, counted_all: bool) -> None:
        now = time.monotonic()
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(what, rest=""), now, done
        task, began, first = self.tasks[what]
        rest = estimate(moved=done - first, took_s=now - began, left=left, counted_all=counted_all)
        self.progress.update(task, completed=done, total=done + left if counted_all else None, rest=rest)


def estimate(*, moved: int, took_s: float, left: int, counted_all: bool) -> str:
    """What may honestly be said of the rest: how much it is, and how long it takes once a rate has been measured."""
    if not counted_all:
        return f"at least {left} left"
    if not left or not moved or took_s < ESTIMATE_AFTER_S:
        return f"{left} left"
    seconds = left * took_s / moved
    about = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{left} left, about {about}"


@contextmanager
def _bar() -> Iterator[Bar]:
    """A bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Silent()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} done, {task.fields[rest]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Terminal(progress)
