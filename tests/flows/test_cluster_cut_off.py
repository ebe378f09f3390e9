"""A replica loses the network to its database for ten seconds under load: it gives nothing it may not, and mends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.settings import load_settings

CUT_S = 10.0
REFUSES_S = 3.0
"""The law: without the feed for so long, nothing is granted."""
SLACK_S = 2.0
"""For a busy machine, between the replica's decision and what is seen of it here."""


async def test_a_replica_that_is_cut_off(
    *,
    shared: Path,
    tcp_proxies: Any,
    serving: Any,
    clusters: Any,
    crews: Any,
    wire: Any,
    reckon: Any,
    stopwatch: Any,
) -> None:
    """It refuses and is red within 3 s, serves again by itself, and renews nothing of who is let go on the other."""
    where = urlsplit(load_settings(shared).storage.url)
    async with tcp_proxies.proxying(where.hostname, where.port) as network:
        through = where._replace(netloc=where.netloc.replace(f":{where.port}", f":{network.port}")).geturl()
        replicas = {"one": {}, "two": {"storage__url": through}}
        async with clusters.running(shared, serving, **replicas) as cluster:
            async with crews.at_work(cluster, wire) as crew:
                there = crew.at("two")
                network.thawed.clear()
                cut = time.monotonic()
                await asyncio.sleep(REFUSES_S + SLACK_S)
                deaf = time.monotonic()
                told = await cluster.ready("two")
                assert (told["feed"], told["ready"]) == ("failed", "503")
                await crew.let_go(there[0], of="one")
                await asyncio.sleep(cut + CUT_S - time.monotonic())
                stayed = {member.name for member in there if member.instance == "two"}
                assert stayed
                assert [name for name in stayed if crew.diary.served_at[name] > deaf] == []
                network.mend()
                stopwatch.start()
                await cluster.until_ready("two", within_s=60)
                await crew.served(time.monotonic())
                stopwatch.stop("a replica that was cut off serves again", bound_s=30.0)
                assert len(cluster.living) == 2
            await reckon(crew)
