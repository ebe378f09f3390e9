"""Leases per second of one replica on PostgreSQL, against one on SQLite: `python -m benchmarks.replica_leases`.

The two brokers take turns, round by round, on the same machine. PostgreSQL is Debian's, as the tests start it, with
its defaults: synchronous_commit is on. Numbers are quoted in docs/decisions/0015-postgresql.md.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

from benchmarks.cluster import fill
from benchmarks.loading import Shape, load
from benchmarks.measures import serving
from benchmarks.process import child
from broker.cli.logs import configure_logs

ROUNDS = 7
TOKENS = 1_000
WORKERS = 32
GOAL = 0.5
_URL = "TOKENBROKER_STORAGE__URL"


def part(name: str) -> ModuleType:
    """A module of tests/parts, which is no package."""
    path = Path(__file__).parents[1] / "tests" / "parts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"parts_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print a line for each database, and the ratio."""
    configure_logs(level="error", style="console")
    shape = Shape(requests=400, tokens=TOKENS)
    with tempfile.TemporaryDirectory() as folder, part("postgres").serving() as server, ExitStack() as stack:
        urls = {"sqlite": f"sqlite:///{folder}/broker.db", "postgresql": server.url(server.create())}
        brokers = {}
        for name, url in urls.items():
            os.environ[_URL] = url
            config = asyncio.run(fill(Path(folder, name), tokens=TOKENS, workers=WORKERS))
            brokers[name] = stack.enter_context(child(*serving(config)))
        rates: dict[str, list[float]] = {name: [] for name in brokers}
        costs: dict[str, list[float]] = {name: [] for name in brokers}
        for number in range(ROUNDS):
            for name, broker in brokers.items():
                with load("lease", broker, shape, offset=number * shape.requests) as running:
                    before = broker.cpu_s()
                    rates[name].append(shape.total / running.round().seconds)
                    costs[name].append((broker.cpu_s() - before) / shape.total * 1e6)
        for name, seen in rates.items():
            cost = statistics.median(costs[name])
            print(f"{name:12} {statistics.median(seen):8.0f} leases/s {cost:6.1f} us of the broker's CPU each")
        ratio = statistics.median(a / b for a, b in zip(rates["postgresql"], rates["sqlite"], strict=True))
        print(f"postgresql to sqlite {ratio:.2f}, goal >= {GOAL}: {'met' if ratio >= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
