"""Drive a load process round by round, and read what each round cost the measured server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.process import Child


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """connections × in_flight requests at a time, `requests` on each connection, over `tokens` tokens."""

    connections: int = 32
    in_flight: int = 8
    requests: int = 1000
    tokens: int = 1000
    rate: float = 0.0
    """Requests a second, all connections together, whatever is in flight; 0: as `in_flight` says."""

    @property
    def total(self) -> int:
        """Requests of one round."""
        return self.connections * self.requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """seconds: from the first request to the last answer. The others: within which that share of the answers came;
    exact with one request in flight, or at a rate.
    """

    seconds: float
    p50_s: float
    p99_s: float
    p999_s: float


class Load:
    """A connected load process. `round` runs its requests once."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def round(self) -> Round:
        """Send everything once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds, p50_s, p99_s, p999_s = map(float, self._line().split())
        return Round(seconds=seconds, p50_s=p50_s, p99_s=p99_s, p999_s=p999_s)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the load process ended with {self._process.wait()}")
        return line


@contextmanager
def load(kind: str, server: Child, shape: Shape, *, offset: int = 0, workers: int = 32) -> Iterator[Load]:
    """A load process connected to `server`; ends with the context."""
    command = [sys.executable, "-m", "benchmarks.load", kind, server.url]
    for name in ("connections", "in_flight", "requests", "tokens", "rate"):
        command += [f"--{name.replace('_', '-')}", str(getattr(shape, name))]
    command += ["--offset", str(offset), "--workers", str(workers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Load(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def cpu_of_round(kind: str, server: Child, shape: Shape, *, offset: int = 0, workers: int = 32) -> float:
    """Microseconds of server CPU for each request of one round, the handshakes left out."""
    with load(kind, server, shape, offset=offset, workers=workers) as running:
        before = server.cpu_s()
        running.round()
        return (server.cpu_s() - before) / shape.total * 1e6
