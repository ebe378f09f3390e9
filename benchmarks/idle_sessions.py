"""Resident memory of sessions that do nothing, in all and above that of bare connections."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone
from benchmarks.loading import Shape, load
from benchmarks.process import child, serving


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """The whole broker with 10 000 sessions, and the part of each."""
    connections = 1000 if quick else 10_000
    config = asyncio.run(fill(folder / "idle", tokens=10, workers=connections))
    shape = Shape(connections=connections, in_flight=1, requests=1)
    grown, whole = {}, 0
    with child("benchmarks.echo") as echo, child(*serving(config)) as broker:
        for name, server, kind in (("echo", echo, "echo"), ("session", broker, "idle")):
            before = server.rss_bytes()
            with load(kind, server, shape, workers=connections) as running:
                whole = server.rss_bytes()
                grown[name] = (whole - before) / connections / 1024
                running.round()  # which fails where one has ended meanwhile
    return [
        Figure(
            name="idle memory in all",
            question=f"memory of a broker with {connections} idle sessions",
            value=whole / 1e6,
            unit="MB",
            goal=None if quick else 250.0,
            detail="resident, the broker itself included",
        ),
        Figure(
            name="idle memory",
            question="memory of an idle session",
            value=grown["session"] / grown["echo"],
            unit="bare connections",
            goal=None,
            detail=f"session {grown['session']:.1f} KiB, bare {grown['echo']:.1f} KiB, {connections} connections",
        ),
    ]


if __name__ == "__main__":
    alone(figures)
