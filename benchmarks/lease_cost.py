"""Server CPU of a durable lease, of a worker and a token not leased before, against that of a bare echo.

In turns, each round with connections of its own, whose handshakes are left out. SQLite with synchronous=FULL, audit on.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, in_turns, ratio
from benchmarks.loading import Shape, cpu_of_round
from benchmarks.process import await_heads, child, serving

_TOKENS = 1_000
_SHAPES = {
    "32 x 8": Shape(connections=32, in_flight=8, requests=1000),
    "1 x 1": Shape(connections=1, in_flight=1, requests=1000),
    "1000 x 1": Shape(connections=1000, in_flight=1, requests=20),
}
"""Connections x requests in flight on each."""
_QUICK = {"32 x 8": Shape(connections=32, in_flight=8, requests=300)}


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """One figure for each shape of load."""
    config = asyncio.run(fill(folder / "cost", tokens=_TOKENS, workers=_TOKENS))
    found = []
    with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
        await_heads(broker, _TOKENS)
        for name, shape in (_QUICK if quick else _SHAPES).items():
            echoes, leases = in_turns(
                3 if quick else 7,
                lambda shape=shape: cpu_of_round("echo", echo, shape),
                lambda shape=shape: cpu_of_round("lease", broker, shape, workers=shape.connections),
            )
            found.append(
                Figure(
                    name=f"lease {name}",
                    question=f"CPU of a durable lease, {name} in flight",
                    value=ratio(leases, echoes),
                    unit="bare echoes",
                    goal=2.5 if name == "32 x 8" else None,
                    detail=f"lease {statistics.median(leases):.1f} us, echo {statistics.median(echoes):.1f} us",
                )
            )
    return found


if __name__ == "__main__":
    alone(figures)
