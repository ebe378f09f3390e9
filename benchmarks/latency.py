"""How soon a durable lease is answered at 30 % of the load that the broker carries, against an echo and one fdatasync.

Requests go out at a steady rate, and count from when they were due: an answer that is late delays no request. The echo
is asked at the same rate in the same turns. fdatasync is that of 4 KiB appended to a file in the broker's folder.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone
from benchmarks.loading import Round, Shape, load
from benchmarks.process import Child, await_heads, child, serving

_TOKENS = 1_000
_SHARE = 0.3
_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """The median, the slowest hundredth and the slowest thousandth."""
    requests, rounds = (100, 3) if quick else (600, 7)
    config = asyncio.run(fill(folder / "latency", tokens=_TOKENS, workers=32))
    with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
        await_heads(broker, _TOKENS)
        most = Shape(requests=300, tokens=_TOKENS)
        with load("lease", broker, most) as running:
            running.round()
            rate = _SHARE * most.total / running.round().seconds
        shape = Shape(in_flight=1, requests=requests, tokens=_TOKENS, rate=rate)
        seen: dict[str, list[tuple[float, float, float]]] = {"lease": [], "echo": [], "disk": []}
        for _ in range(rounds):
            seen["echo"].append(_within(_round("echo", echo, shape)))
            seen["lease"].append(_within(_round("lease", broker, shape)))
            seen["disk"].append(_synced(folder / "synced", 200 if quick else 1000))
    found = []
    for at, name in enumerate(_SHARES):
        lease, reply, disk = (statistics.median(each[at] for each in seen[kind]) for kind in ("lease", "echo", "disk"))
        found.append(
            Figure(
                name=f"latency {name}",
                question=f"{name} of durable leases at 30 % load ({rate:.0f}/s)",
                value=statistics.median(
                    a[at] / (b[at] + c[at]) for a, b, c in zip(seen["lease"], seen["echo"], seen["disk"], strict=True)
                ),
                unit="echo + fdatasync",
                goal=3.0 if name == "p99" else None,
                detail=f"lease {lease * 1e3:.2f} ms, echo {reply * 1e3:.2f} ms, fdatasync {disk * 1e3:.2f} ms",
            )
        )
    return found


def _round(kind: str, server: Child, shape: Shape) -> Round:
    with load(kind, server, shape) as running:
        return running.round()


def _within(done: Round) -> tuple[float, float, float]:
    return done.p50_s, done.p99_s, done.p999_s


def _synced(path: Path, times: int) -> tuple[float, float, float]:
    taken = []
    block = os.urandom(4096)
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(times):
            os.write(file, block)
            started = time.perf_counter()
            os.fdatasync(file)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(file)
    taken.sort()
    p50, p99, p999 = (taken[int(times * share)] for share in _SHARES.values())
    return p50, p99, p999


if __name__ == "__main__":
    alone(figures)
