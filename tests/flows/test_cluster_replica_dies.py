"""A replica is killed, or freezes, under load: its workers go on with their leases elsewhere, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

SERVED_S = 30.0
"""As docs/explain/failure-modes.md says, with everybody served by the replica that is left."""
SERVED_BESIDE_FROZEN_S = 60.0
"""The same; who finds the frozen one waits for it in vain first."""
FROZEN_S = 10.0


async def test_a_killed_replica(
    *, shared: Path, serving: Any, clusters: Any, crews: Any, wire: Any, reckon: Any, stopwatch: Any
) -> None:
    """kill -9: its workers resume all they hold on the other one, also one who is let go at that moment is."""
    async with clusters.running(shared, serving, one={}, two={}) as cluster:
        async with crews.at_work(cluster, wire) as crew:
            await cluster.until_listed("two", of="one", there=True)
            orphans = crew.at("two")
            assert len(orphans) > 1
            held = {lease for member in orphans[1:] for token, (lease, _) in member.hands.items() if "long" in token}
            await cluster.kill("two")
            killed = time.monotonic()
            stopwatch.start()
            await crew.let_go(orphans[0])
            await crew.served(killed)
            stopwatch.stop("everybody is served after kill -9 of a replica", bound_s=SERVED_S)
            assert held & crew.diary.resumed
            # Long enough for a short lease to run out, and for the dead one's work to be taken over.
            await cluster.until_listed("two", of="one", there=False)
        await reckon(crew)


async def test_a_frozen_replica(
    *, shared: Path, serving: Any, clusters: Any, crews: Any, wire: Any, reckon: Any, stopwatch: Any
) -> None:
    """SIGSTOP for 10 s: its workers are served elsewhere; when it goes on, who was let go meanwhile gets nothing."""
    async with clusters.running(shared, serving, one={}, two={}) as cluster:
        async with crews.at_work(cluster, wire) as crew:
            cluster.freeze("two")
            frozen = time.monotonic()
            stopwatch.start()
            await crew.let_go(crew.at("two")[0], of="one")
            await crew.served(frozen)
            stopwatch.stop("everybody is served after a replica froze", bound_s=SERVED_BESIDE_FROZEN_S)
            await asyncio.sleep(max(0.0, frozen + FROZEN_S - time.monotonic()))
            cluster.thaw("two")
            stopwatch.start()
            await cluster.until_ready("two", within_s=60)
            stopwatch.stop("the frozen replica is ready again", bound_s=30.0)
            await crew.served(time.monotonic())
        await reckon(crew)
