"""What stands between workers and the KMS: how often it is asked at a cold start, and what a brown-out costs leases."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import time
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone
from benchmarks.loading import Shape, load
from benchmarks.process import Child, child, serving

_RATE_PER_S = 100.0
"""`kms.rate_per_s` unless the configuration says otherwise."""


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """The cold start, then the brown-out."""
    return cold_start(folder) + brown_out(folder, rounds=1 if quick else 7, requests=50 if quick else 300)


def cold_start(folder: Path) -> list[Figure]:
    """200 workers that want 10 tokens each, all at once, of a broker that has just started. 10 data keys."""
    config = asyncio.run(fill(folder / "cold", tokens=10, workers=200, keyrings=10))
    shape = Shape(connections=200, in_flight=10, requests=10, tokens=10)
    with child(*serving(config)) as broker, load("lease", broker, shape, workers=200) as running:
        before = _unwraps(broker)
        done = running.round()
        asked = [count - before.get(name, 0.0) for name, count in _unwraps(broker).items()]
    return [
        Figure(
            name="cold unwraps",
            question="unwraps for each data key, cold start, 200 workers x 10 tokens",
            value=sum(asked) / 10,
            unit="calls",
            goal=2.0,
            detail=f"2000 leases in {done.seconds:.2f} s, p99 {done.p99_s * 1000:.0f} ms, from the first request on",
        )
    ]


def brown_out(folder: Path, *, rounds: int, requests: int) -> list[Figure]:
    """Leases under cached data keys while the KMS takes 2 s and fails 95 %, against the same minutes in health.

    Each round in the brown-out is compared with those before and after it, so that a machine which is now faster and
    now slower does not tell a difference that is not there.
    """
    config = asyncio.run(fill(folder / "brown", tokens=32, workers=32, keyrings=32, soft_ttl="1s"))
    shape = Shape(connections=32, in_flight=1, requests=requests, tokens=32)
    healthy, faulty, calls, seconds = [], [], 0.0, 0.0
    with child("benchmarks.faulty_kms", str(config)) as broker, load("lease", broker, shape) as running:
        running.round()
        healthy.append(running.round().p99_s)
        for _ in range(rounds):
            os.kill(broker.pid, signal.SIGUSR1)
            before, begun = _calls(broker), time.perf_counter()
            _await_trouble(broker)
            faulty.append(running.round().p99_s)
            calls += _calls(broker) - before
            seconds += time.perf_counter() - begun
            os.kill(broker.pid, signal.SIGUSR2)
            _await_health(broker)
            healthy.append(running.round().p99_s)
    around = [(before + after) / 2 for before, after in pairwise(healthy)]
    ratio = statistics.median(slow / well for slow, well in zip(faulty, around, strict=True))
    return [
        Figure(
            name="brown-out p99",
            question="p99 of cached leases in a brown-out of the KMS, against health",
            value=ratio,
            unit="times",
            goal=1.2,
            detail=f"medians: {statistics.median(faulty) * 1000:.1f} ms, {statistics.median(healthy) * 1000:.1f} ms; "
            f"{rounds} rounds of {shape.total} leases, 32 in flight, 32 data keys, soft TTL 1 s",
        ),
        Figure(
            name="brown-out calls",
            question="KMS calls in that brown-out",
            value=calls / seconds,
            unit="calls/s",
            goal=_RATE_PER_S,
            detail="the token bucket allows 100; the breaker keeps them below",
        ),
    ]


def _metrics(broker: Child) -> str:
    with urllib.request.urlopen(f"{broker.url}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _unwraps(broker: Child) -> dict[str, float]:
    """Answers to unwraps, by their labels."""
    found = re.findall(r"^tokenbroker_vault_unwraps_total(\{.*\}) (\S+)$", _metrics(broker), flags=re.MULTILINE)
    return {labels: float(number) for labels, number in found}


def _calls(broker: Child) -> float:
    """KMS calls that were made and ended, of every kind."""
    return sum(
        map(float, re.findall(r"^tokenbroker_kms_call_seconds_count\{.*\} (\S+)$", _metrics(broker), re.MULTILINE))
    )


def _breaker(broker: Child) -> float:
    return max(map(float, re.findall(r"^tokenbroker_kms_breaker\{.*\} (\S+)$", _metrics(broker), flags=re.MULTILINE)))


def _await_trouble(broker: Child) -> None:
    """Return when the KMS key has been given up for the moment: from then on leases are served by the cache alone."""
    _await(lambda: _breaker(broker) > 0)


def _await_health(broker: Child) -> None:
    """Return when the KMS key is asked as needed again."""
    _await(lambda: _breaker(broker) == 0)


def _await(there: Callable[[], bool]) -> None:
    for _ in range(600):
        if there():
            return
        time.sleep(0.1)
    raise RuntimeError("the broker's breaker did not do what its KMS asked for")


if __name__ == "__main__":
    alone(figures)
