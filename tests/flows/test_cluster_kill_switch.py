"""The kill switch while a replica dies: the report still names exactly those who did not wipe."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

TOKEN = "github/ci"
WAIT_S = 60.0


async def test_who_was_with_a_replica_that_dies_meanwhile_is_named_as_he_was(
    *, shared: Path, serving: Any, clusters: Any, wire: Any
) -> None:
    """Who wiped before it died has wiped, whoever did not is offline since then, and who is silent elsewhere is not."""
    async with clusters.running(shared, serving, one={}, two={}) as cluster, AsyncExitStack() as stack:
        await cluster.must("POST", f"/v1/tokens/{TOKEN}/-/versions", {"value": "s3cret"}, of="one")
        await cluster.must("POST", "/v1/grants", {"subject": "group:crew", "pattern": TOKEN, "ttl_s": 600}, of="one")
        crew = {wire.Identity(name): at for name, at in (("wipes", "two"), ("silent", "two"), ("elsewhere", "one"))}
        for who in crew:
            known = {"worker": who.name, "public_key": wire.b64(who.public_key), "groups": ["crew"]}
            await cluster.must("POST", "/v1/workers", known, of="one")
        await known_of("two", cluster, "elsewhere")
        workers = {}
        for who, at in crew.items():
            worker = await stack.enter_async_context(wire.dial(cluster.replicas[at].url))
            await worker.handshake(who)
            workers[who.name] = worker, (await worker.lease(TOKEN))["lease"]
        async with asyncio.TaskGroup() as tasks:
            body = {"token": TOKEN, "reason": "leaked", "wait_s": WAIT_S}
            killing = tasks.create_task(cluster.ask("POST", "/v1/leases/revoke", body, of="one", within_s=WAIT_S + 20))
            for name, (worker, lease) in workers.items():
                assert (await worker.push())["leases"] == [lease]
                if name == "wipes":
                    await worker.send(type="ack", lease=lease, status="wiped")
            await wiped(cluster, workers["wipes"][1])
            await cluster.kill("two")
            await cluster.until_listed("two", of="one", there=False)
            worker, lease = workers["elsewhere"]
            assert not killing.done()
            await worker.send(type="ack", lease=lease, status="failed", detail="no hands")
            await worker.socket.close()
        status, report = killing.result()
        assert status == 200
        assert {row["worker"] for row in report["revoked"]} == set(workers)
        assert {row["worker"] for row in report["wiped"]} == {"wipes"}
        missing = {row["worker"]: (row["state"], row["failed"], row["detail"]) for row in report["missing"]}
        assert missing == {"silent": ("offline", False, ""), "elsewhere": ("offline", True, "no hands")}


async def wiped(cluster: Any, lease: str) -> None:
    """Return when the record says so."""
    async with asyncio.timeout(20):
        while True:
            told = await cluster.must("GET", f"/v1/leases/timeline?token={TOKEN}", of="one")
            if any((event["event"], event["lease"]) == ("wiped", lease) for event in told["items"]):
                return
            await asyncio.sleep(0.1)


async def known_of(replica: str, cluster: Any, worker: str) -> None:
    """Return when a replica has heard of a worker, and so of all that came before."""
    async with asyncio.timeout(20):
        while True:
            if (await cluster.ask("GET", f"/v1/workers/{worker}", of=replica))[0] == 200:
                return
            await asyncio.sleep(0.05)
