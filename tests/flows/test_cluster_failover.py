"""The primary is killed under load and its synchronous standby promoted: brokers follow it, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import ModuleType
from typing import Any

SERVED_S = 30.0
"""From the promotion on, as docs/explain/failure-modes.md says."""


async def test_the_standby_takes_over(
    *,
    tmp_path: Path,
    postgres_servers: ModuleType,
    serving: Any,
    clusters: Any,
    crews: Any,
    wire: Any,
    reckon: Any,
    stopwatch: Any,
) -> None:
    """Every worker of both replicas is served again by itself, and who was let go before stays out."""
    with postgres_servers.serving() as primary, postgres_servers.standby(primary) as standby:
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        login = f"postgres:{primary.password}"
        url = f"postgresql://{login}@{hosts}/{primary.create()}?target_session_attrs=read-write"
        shared = await clusters.found(url, tmp_path / "shared")
        async with clusters.running(shared, serving, one={}, two={}) as cluster:
            async with crews.at_work(cluster, wire) as crew:
                leaver = crew.at("one")[0]
                await crew.let_go(leaver, of="two")
                primary.kill()
                await asyncio.to_thread(standby.promote)
                promoted = time.monotonic()
                stopwatch.start()
                await crew.served(promoted)
                stopwatch.stop("everybody is served after a standby was promoted", bound_s=SERVED_S)
                await crew.let_go(crew.at("two")[0], of="one")
                for name in cluster.living:
                    await cluster.until_ready(name, within_s=30)
                await crew.served(time.monotonic())
                assert len(cluster.living) == 2
            await reckon(crew)
