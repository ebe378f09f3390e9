"""The questions, each answered by one function with figures measured in the same run."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster import VALUE_BYTES, fill
from benchmarks.loading import Shape, cpu_of_round, load
from benchmarks.process import Child, child
from broker.vault.envelope import FMT, ValueContexts, open_value, seal_value


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One answer. goal: what it should be at most."""

    question: str
    value: float
    unit: str
    goal: float | None
    detail: str

    @property
    def met(self) -> str:
        """Whether the goal is met, in a word."""
        return "" if self.goal is None else "met" if self.value <= self.goal else "missed"


def serving(config: Path) -> tuple[str, ...]:
    """The command line of a measured broker."""
    return ("broker.cli.main", "serve", "--config", str(config), "--listen", "127.0.0.1:0")


def lease_cost(folder: Path, *, rounds: int, requests: int) -> list[Figure]:
    """Server CPU for a durable lease of a pair of worker and token not leased before, against a bare echo."""
    figures = []
    configs = {count: asyncio.run(fill(folder / f"t{count}", tokens=count, workers=32)) for count in (1_000, 100_000)}
    costs: dict[int, float] = {}
    for count, config in configs.items():
        shape = Shape(requests=min(requests, count // (rounds + 1)), tokens=count)
        with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
            _await_heads(broker, count)
            ratios, leases, echoes = [], [], []
            for number in range(rounds):
                echoes.append(cpu_of_round("echo", echo, Shape(requests=requests, tokens=count)))
                leases.append(cpu_of_round("lease", broker, shape, offset=number * shape.requests))
                ratios.append(leases[-1] / echoes[-1])
        costs[count] = statistics.median(leases)
        figures.append(
            Figure(
                question=f"CPU of a durable lease, 32 x 8 in flight, {count} tokens",
                value=statistics.median(ratios),
                unit="bare echoes",
                goal=3.5,
                detail=f"lease {statistics.median(leases):.1f} us, echo {statistics.median(echoes):.1f} us",
            )
        )
    figures.append(
        Figure(
            question="cost of a lease among 100 000 tokens, against 1 000",
            value=costs[100_000] / costs[1_000],
            unit="times",
            goal=1.2,
            detail="medians of the two rows above",
        )
    )
    return figures


def _await_heads(broker: Child, count: int) -> None:
    """Return when the broker has read ahead every token's head: then each lease is a warm one."""
    for _ in range(600):
        with urllib.request.urlopen(f"{broker.url}/metrics", timeout=5) as answer:
            if f"tokenbroker_leases_heads {float(count)}" in answer.read().decode():
                return
        time.sleep(0.2)
    raise RuntimeError("the broker did not read its token heads ahead")


def idle_session(folder: Path, *, connections: int) -> list[Figure]:
    """Resident memory of a session that does nothing, above that of a bare connection."""
    config = asyncio.run(fill(folder / "idle", tokens=10, workers=connections))
    shape = Shape(connections=connections, in_flight=1, requests=1)
    grown = {}
    with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
        for name, server, kind in (("echo", echo, "echo"), ("session", broker, "idle")):
            before = server.rss_bytes()
            with load(kind, server, shape, workers=connections):
                grown[name] = (server.rss_bytes() - before) / connections / 1024
    return [
        Figure(
            question="memory of an idle session above a bare connection",
            value=grown["session"] - grown["echo"],
            unit="KiB",
            goal=10.0,
            detail=f"session {grown['session']:.1f} KiB, bare {grown['echo']:.1f} KiB, {connections} connections",
        )
    ]


def opening() -> list[Figure]:
    """Opening a sealed value of 64 bytes."""
    key = os.urandom(32)
    contexts = ValueContexts(cluster_id="c" * 52, keyring="default", data_key="k" * 24)
    sealed = seal_value(key=key, context=contexts.of("bench/t1", 1), value=os.urandom(VALUE_BYTES))

    def once() -> None:
        open_value(fmt=FMT, key=key, context=contexts.of("bench/t1", 1), sealed=sealed)

    return [
        Figure(
            question="opening a sealed value of 64 bytes",
            value=_best_us(once),
            unit="us",
            goal=12.0,
            detail="best of 7 x 20 000, context included",
        )
    ]


def _best_us(call: Callable[[], None], *, calls: int = 20_000) -> float:
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - started)
    return best / calls * 1e6


def start_up(folder: Path, *, tokens: int, leases: int) -> list[Figure]:
    """From the command to `listening on`, with tokens and live leases on disk."""
    config = asyncio.run(fill(folder / "start", tokens=tokens, workers=32, leases=leases))
    seconds = [_started(config) for _ in range(3)]
    return [
        Figure(
            question=f"start-up with {tokens} tokens and {leases} live leases",
            value=statistics.median(seconds),
            unit="s",
            goal=3.0,
            detail="median of 3, from the command to ready",
        )
    ]


def _started(config: Path) -> float:
    started = time.perf_counter()
    with child(*serving(config)) as server:
        assert isinstance(server, Child)
        return time.perf_counter() - started
