"""A broker that starts: from the command to `listening on`, with little and with much on disk."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, in_turns, ratio
from benchmarks.process import child, serving


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """Seconds, and how much longer than with next to nothing."""
    count = 10_000 if quick else 100_000
    empty = asyncio.run(fill(folder / "few", tokens=10, workers=32, leases=10))
    full = asyncio.run(fill(folder / "many", tokens=count, workers=32, leases=count))
    many, few = in_turns(3 if quick else 5, lambda: _started(full), lambda: _started(empty))
    return [
        Figure(
            name="start-up",
            question=f"start with {count} tokens and {count} live leases",
            value=statistics.median(many),
            unit="s",
            goal=3.0,
            detail=f"{ratio(many, few):.2f} times that with 10 of each, {statistics.median(few):.2f} s",
        )
    ]


def _started(config: Path) -> float:
    started = time.perf_counter()
    with child(*serving(config)):
        return time.perf_counter() - started


if __name__ == "__main__":
    alone(figures)
