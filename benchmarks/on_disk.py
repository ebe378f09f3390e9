"""A lease among a million tokens and a million leases, against one among a thousand of each.

Once of the same thousand tokens in both, which shows what the size of the tables costs; and once of tokens from all of
the million, each asked for once. The latter pays for what so many tokens bring: their keys are derived anew, and most
heads are read first, since a broker keeps 131 072 of them in memory.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Final

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, in_turns, ratio
from benchmarks.loading import Shape, cpu_of_round
from benchmarks.process import await_heads, child, serving
from broker.leases.settings import LeaseSettings

_FEW: Final = 1_000
_GOAL: Final = 1.2


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """Server CPU among many for each of that among few, for known tokens and for any."""
    count = 20_000 if quick else 1_000_000
    rounds, requests = (3, 150) if quick else (7, 400)
    few = asyncio.run(fill(folder / "few", tokens=_FEW, workers=32, leases=_FEW))
    began = time.perf_counter()
    many = asyncio.run(fill(folder / "many", tokens=count, workers=32, leases=count))
    filling_s = time.perf_counter() - began
    disk = sum(file.stat().st_size for file in (folder / "many").rglob("*") if file.is_file())
    known, fresh = Shape(requests=requests, tokens=_FEW), Shape(requests=requests, tokens=count)
    offsets = iter(range(_FEW, _FEW + rounds * requests, requests))
    with child(*serving(few)) as small, child(*serving(many)) as large:
        await_heads(small, _FEW)
        await_heads(large, min(count, LeaseSettings().heads_max))
        same, spread, base = in_turns(
            rounds,
            lambda: cpu_of_round("lease", large, known),
            lambda: cpu_of_round("lease", large, fresh, offset=next(offsets)),
            lambda: cpu_of_round("lease", small, known),
        )
    base_us = statistics.median(base)
    return [
        Figure(
            name="lease among many",
            question=f"a lease of one of {_FEW} tokens, among {count} tokens and leases, against among {_FEW}",
            value=ratio(same, base),
            unit="times",
            goal=_GOAL,
            detail=f"CPU: {statistics.median(same):.1f} us, {base_us:.1f} us; 32 x 8 in flight; "
            f"filled in {filling_s:.0f} s, {disk / 1e6:.0f} MB",
        ),
        Figure(
            name="lease of any of many",
            question=f"a lease of any of {count} tokens, each asked for once, against one of {_FEW}",
            value=ratio(spread, base),
            unit="times",
            goal=_GOAL,
            detail=f"CPU: {statistics.median(spread):.1f} us, {base_us:.1f} us; keys derived, heads read",
        ),
    ]


if __name__ == "__main__":
    alone(figures)
