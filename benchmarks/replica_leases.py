"""Leases per second of replicas on PostgreSQL, against a broker on SQLite.

Three brokers take turns on one machine, round by round: one on SQLite, and two on one PostgreSQL, first one of them and
then both at once. PostgreSQL is Debian's, as the tests start it, with its defaults: synchronous_commit is on. Brokers,
database and load share the cores, so two replicas show what sharing a database costs, and not what machines of their
own would gain. Numbers are quoted in docs/decisions/0015-postgresql.md.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, ratio
from benchmarks.loading import Shape, load
from benchmarks.process import Child, child, serving

_TOKENS = 1_000
_WORKERS = 32
_URL, _INSTANCE = "TOKENBROKER_STORAGE__URL", "TOKENBROKER_SERVER__INSTANCE"


def part(name: str) -> ModuleType:
    """A module of tests/parts, which is no package."""
    path = Path(__file__).parents[1] / "tests" / "parts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"parts_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """Durable leases per second: of one broker on SQLite, one on PostgreSQL, and two on one PostgreSQL."""
    rounds, requests = (1, 100) if quick else (7, 400)
    shape = Shape(requests=requests, tokens=_TOKENS)
    rates: dict[str, list[float]] = {"sqlite": [], "one": [], "two": []}
    with part("postgres").serving() as server, ExitStack() as stack:
        (alone,) = stack.enter_context(_brokers(folder / "sqlite", f"sqlite:///{folder}/leases.db", 1))
        first, second = stack.enter_context(_brokers(folder / "postgresql", server.url(server.create()), 2))
        for number in range(rounds):
            for name, brokers in (("sqlite", (alone,)), ("one", (first,)), ("two", (first, second))):
                rates[name].append(_rate(brokers, shape, offset=number * requests))
    middle = {name: statistics.median(seen) for name, seen in rates.items()}
    return [
        Figure(
            name="PostgreSQL",
            question="leases a second on SQLite, for one on PostgreSQL",
            value=ratio(rates["sqlite"], rates["one"]),
            unit="times",
            goal=2.0,
            detail=f"SQLite {middle['sqlite']:.0f}/s, PostgreSQL {server.programs.parent.name} {middle['one']:.0f}/s, "
            "32 x 8 in flight",
        ),
        Figure(
            name="two replicas",
            question="leases a second of two replicas, for one of one",
            value=ratio(rates["two"], rates["one"]),
            unit="times",
            goal=None,
            detail=f"two {middle['two']:.0f}/s, one {middle['one']:.0f}/s, on the same {os.cpu_count()} cores",
        ),
    ]


@contextmanager
def _brokers(folder: Path, url: str, count: int) -> Iterator[list[Child]]:
    """So many replicas on one database."""
    os.environ[_URL] = url
    try:
        config = asyncio.run(fill(folder, tokens=_TOKENS, workers=_WORKERS))
        with ExitStack() as stack:
            brokers = []
            for number in range(count):
                os.environ[_INSTANCE] = f"replica-{number}"
                brokers.append(stack.enter_context(child(*serving(config))))
            del os.environ[_URL], os.environ[_INSTANCE]
            yield brokers
    finally:
        for name in (_URL, _INSTANCE):
            os.environ.pop(name, None)


def _rate(brokers: tuple[Child, ...], shape: Shape, *, offset: int) -> float:
    """Answers per second of all brokers together, each under a load of its own."""
    with ExitStack() as stack, ThreadPoolExecutor(len(brokers)) as threads:
        loads = [stack.enter_context(load("lease", broker, shape, offset=offset)) for broker in brokers]
        seconds = [done.seconds for done in threads.map(lambda each: each.round(), loads)]
    return len(brokers) * shape.total / max(seconds)


if __name__ == "__main__":
    alone(figures)
