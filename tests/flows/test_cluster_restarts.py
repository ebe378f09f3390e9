"""The database and every replica are killed at once, and started again: all the workers come back to what they had."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

WORKERS = 200
"""`python -m benchmarks.restart_storm` does it with 5000."""
CROWDED = {"server__shared_addresses": "true"}
"""All workers come from one address."""
QUIET_S = 60.0
"""Longer than the test: workers only listen."""
SERVED_S = 60.0
"""From the moment at which everything is started, for so many workers on a small machine."""


async def test_everything_restarts_at_once(
    *,
    tmp_path: Path,
    postgres_of_its_own: Any,
    serving: Any,
    clusters: Any,
    crews: Any,
    wire: Any,
    reckon: Any,
    stopwatch: Any,
) -> None:
    """Hundreds of workers storm two replicas that have just started, and resume the same leases."""
    server = postgres_of_its_own
    shared = await clusters.found(server.url(server.create()), tmp_path / "shared")
    async with clusters.running(shared, serving, one=CROWDED, two=CROWDED) as cluster:
        async with crews.at_work(
            cluster, wire, WORKERS, tokens=crews.LONG_TOKENS, pause_s=QUIET_S, operator_pause_s=1.0
        ) as crew:
            held = {lease for member in crew.members.values() for lease, _ in member.hands.values()}
            assert len(held) >= WORKERS
            await asyncio.gather(asyncio.to_thread(server.stop), *map(cluster.kill, ("one", "two")))
            down = time.monotonic()
            stopwatch.start()
            await asyncio.to_thread(server.start)
            await asyncio.gather(*(cluster.start(name, **CROWDED) for name in ("one", "two")))
            await crew.served(down)
            stopwatch.stop(f"{WORKERS} workers are served after everything was restarted", bound_s=SERVED_S)
            await crew.let_go(crew.at("one")[0], of="two")
        assert len(held & crew.diary.resumed) >= WORKERS
        await reckon(crew)
