"""A lease among a million tokens and a million leases, against one among a thousand of each.

More heads of tokens than a broker keeps in memory, so many of these leases begin with reading one.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, in_turns, ratio
from benchmarks.loading import Shape, cpu_of_round
from benchmarks.process import await_heads, child, serving
from broker.leases.settings import LeaseSettings

_FEW = 1_000


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """Server CPU of the one for each of the other."""
    count = 20_000 if quick else 1_000_000
    requests = 300 if quick else 1_000
    configs = {
        number: asyncio.run(fill(folder / f"n{number}", tokens=number, workers=32, leases=number))
        for number in (_FEW, count)
    }
    with child(*serving(configs[_FEW])) as small, child(*serving(configs[count])) as large:
        await_heads(small, _FEW)
        await_heads(large, min(count, LeaseSettings().heads_max))
        many, few = in_turns(
            3 if quick else 7,
            lambda: cpu_of_round("lease", large, Shape(requests=requests, tokens=count)),
            lambda: cpu_of_round("lease", small, Shape(requests=requests, tokens=_FEW)),
        )
    return [
        Figure(
            name="lease among many",
            question=f"a lease among {count} tokens and leases, against {_FEW}",
            value=ratio(many, few),
            unit="times",
            goal=1.2,
            detail=f"CPU: {statistics.median(many):.1f} us, {statistics.median(few):.1f} us; 32 x 8 in flight",
        )
    ]


if __name__ == "__main__":
    alone(figures)
