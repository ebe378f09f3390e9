"""`tokenbroker token put --batch`: many values, several requests under way, results in the order of the lines.

What is in memory is bounded, whatever the length of the input. Lines of one token are stored in their order: a request
waits for earlier ones that hold the same token.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from broker.api.views.tokens import BatchDone, PutBatch
from broker.cli.batch_lines import LineResult, Part, read_parts
from broker.cli.client import AdminClient, NoBroker, Refused
from broker.cli.failures import FAILED, printable
from broker.cli.operating import Operator
from broker.cli.output import note, write_line

UNDER_WAY_MAX: Final = 4
_LONGER_S: Final = 90.0
"""How much longer than other requests a part may take to be answered."""


async def put_batch(operator: Operator, path: Path) -> None:
    """Store every line of the file; prints a result for each, and exits with 1 if one failed."""
    results: list[LineResult] = []
    failed = 0
    with _opened(path) as stream, _progress(path) as advance:

        def take(part: list[LineResult]) -> None:
            nonlocal failed
            failed += sum(result.code is not None for result in part)
            advance(len(part))
            if operator.out.json:
                results.extend(part)
                return
            for result in part:
                write_line(printable(_said(result)))

        await _send_all(operator.client, stream, take)
    if operator.out.json:
        operator.out.fact(results)
    if failed:
        note(f"tokenbroker: {failed} lines were not stored; mend them and put them again")
        raise typer.Exit(FAILED)


async def _send_all(client: AdminClient, stream: BinaryIO, take: Callable[[list[LineResult]], None]) -> None:
    under_way: deque[tuple[Part, asyncio.Task[list[LineResult]]]] = deque()
    parts = read_parts(stream)
    async with asyncio.TaskGroup() as tasks:
        # In a thread: standard input may have nothing to read for long, while answers arrive.
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            while len(under_way) >= UNDER_WAY_MAX or any(part.tokens & ahead.tokens for ahead, _ in under_way):
                take(await under_way.popleft()[1])
            under_way.append((part, tasks.create_task(_send(client, part))))
        while under_way:
            take(await under_way.popleft()[1])


async def _send(client: AdminClient, part: Part) -> list[LineResult]:
    results = part.refused + await _stored(client, part)
    return sorted(results, key=lambda result: result.line)


async def _stored(client: AdminClient, part: Part) -> list[LineResult]:
    """A result for each item. Refused: with 401 or 403 the rest need not be tried."""
    if not part.items:
        return []
    try:
        done = await client.post("/v1/tokens", BatchDone, PutBatch(items=part.items), wait_s=_LONGER_S)
    except Refused as refused:
        if refused.problem.status in {401, 403}:
            raise
        return _all_failed(part, refused.problem.code, refused.message)
    except NoBroker as error:
        return _all_failed(part, "no_answer", error.message)
    return [
        LineResult(
            line=line,
            token=result.token,
            version=result.version,
            stage=result.stage,
            code=result.code,
            detail=result.detail,
        )
        for line, result in zip(part.lines, done.results, strict=True)
    ]


def _all_failed(part: Part, code: str, detail: str) -> list[LineResult]:
    return [
        LineResult(line=line, token=item.token, code=code, detail=detail)
        for line, item in zip(part.lines, part.items, strict=True)
    ]


def _said(result: LineResult) -> str:
    if result.code is None:
        return f"line {result.line}: {result.token} version {result.version} is {result.stage}"
    return f"line {result.line}: {result.token or '?'} FAILED ({result.code}): {result.detail}"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with path.open("rb") as stream:
        yield stream


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; what advances it by a number of lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("sealing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Rich would send what is printed meanwhile to this console: right where both are one terminal, wrong for a file.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("", total=_lines(path))
        yield lambda lines: bar.advance(task, lines)


def _lines(path: Path) -> int | None:
    """How many lines a file has; None for what can be read only once."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
