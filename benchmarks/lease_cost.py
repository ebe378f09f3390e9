"""Server CPU of a durable lease against that of a bare echo, under loads that differ in width and in what they ask for.

In turns, each round with connections of its own, whose handshakes are left out; so is what the end of a lease costs
later. SQLite with synchronous=FULL, audit on.

A session asks for each token once, and workers share the tokens, so that values were opened before, unless the load's
name says otherwise: with few tokens each session asks again and again for what it holds, and new tokens are such that
nobody asked for before, so that a key is derived for each value. With one token, what a session has in
flight meets in one batch, and is written once.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, in_turns, ratio
from benchmarks.loading import Shape, cpu_of_round
from benchmarks.process import Child, await_heads, child, serving

_TOKENS: Final = 1_000
_GOAL: Final = 2.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """One load. what: how the question names it. fresh: each round asks for tokens that no round before asked for."""

    what: str
    shape: Shape
    fresh: bool = False
    goal: float | None = None


def _loads(rounds: int, requests: int) -> Mapping[str, _Asked]:
    """By the name of the figure. requests: of each of 32 connections in a round."""
    wide = Shape(requests=requests, tokens=_TOKENS)
    few = {
        f"lease {count} token{'s' * (count > 1)}": _Asked(
            what=f"of {count} token{'s' * (count > 1)} asked for again and again, 32 x 8 in flight",
            shape=Shape(requests=requests, tokens=count),
        )
        for count in (1, 10, 100)
    }
    new = Shape(requests=requests // 4, tokens=wide.connections * (requests // 4) * rounds)
    return {
        "lease 32 x 8": _Asked(what="32 x 8 in flight", shape=wide, goal=_GOAL),
        "lease 1 x 1": _Asked(what="1 x 1 in flight", shape=Shape(connections=1, in_flight=1, requests=1000)),
        "lease 1000 x 1": _Asked(
            what="1000 x 1 in flight", shape=Shape(connections=1000, in_flight=1, requests=requests // 40)
        ),
        **few,
        # The first thousand are those of the loads before: too few to matter.
        "lease new tokens": _Asked(what="of new tokens, 32 x 8 in flight", shape=new, fresh=True),
    }


_QUICK: Final = ("lease 32 x 8", "lease 10 tokens", "lease new tokens")


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """One figure for each load."""
    rounds, requests = (3, 300) if quick else (7, 600)
    loads = {name: each for name, each in _loads(rounds, requests).items() if not quick or name in _QUICK}
    tokens = max(each.shape.tokens for each in loads.values())
    workers = max(each.shape.connections for each in loads.values())
    config = asyncio.run(fill(folder / "cost", tokens=tokens, workers=workers))
    with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
        await_heads(broker, tokens)
        return [_answer(name, each, broker, echo, rounds) for name, each in loads.items()]


def _answer(name: str, load: _Asked, broker: Child, echo: Child, rounds: int) -> Figure:
    shape = load.shape
    offsets = iter(range(0, rounds * shape.requests, shape.requests))

    def leased() -> float:
        offset = next(offsets) if load.fresh else 0
        return cpu_of_round("lease", broker, shape, offset=offset, workers=shape.connections)

    echoes, leases = in_turns(rounds, lambda: cpu_of_round("echo", echo, shape), leased)
    return Figure(
        name=name,
        question=f"CPU of a durable lease, {load.what}",
        value=ratio(leases, echoes),
        unit="bare echoes",
        goal=load.goal,
        detail=f"lease {statistics.median(leases):.1f} us, echo {statistics.median(echoes):.1f} us",
    )


if __name__ == "__main__":
    alone(figures)
