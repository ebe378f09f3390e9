"""Replicas in processes of their own, as operators run them: killed, drained and restarted under a worker's feet.

The worker uses the client library, and reaches the broker through something that stands for a load balancer.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

import tokenbroker_client
from tokenbroker_client.keys import WorkerKey

BACK_S = 15.0
"""How soon a worker of a replica that is gone has its lease on another."""
BURIED_S = 30.0
"""How soon the sessions of a killed replica are closed on record."""


@dataclass(kw_only=True)
class Fleet:
    """Replicas, `processes` by name; workers dial `balancer`."""

    folder: Path
    credential: str
    serving: Any
    stack: AsyncExitStack
    balancer: Any
    processes: dict[str, Any]
    until: Any

    async def start(self, instance: str) -> Any:
        """Start that replica, in place of an earlier one."""
        config = self.folder / "broker.toml"
        log = self.folder / f"{instance}.log"
        process = await self.stack.enter_async_context(self.serving(config, log, server__instance=instance))
        self.processes[instance] = process
        return process

    def balance(self, instance: str) -> None:
        """Whoever connects from now on reaches this replica."""
        url = urlsplit(self.processes[instance].url)
        self.balancer.target = (url.hostname, url.port)

    async def api(self, instance: str, method: str, path: str, body: Any = None) -> Any:
        """What that replica answers the first admin."""
        headers = {"Authorization": f"Bearer {self.credential}"}
        url = f"{self.processes[instance].url}{path}"
        async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers, json=body) as response:
            answer = await response.text()
            assert response.status < 300, answer
            return json.loads(answer) if answer else None

    async def put(self, instance: str, value: str) -> None:
        await self.api(instance, "POST", "/v1/tokens", {"items": [{"token": "github/ci", "value": value}]})

    async def held(self, instance: str) -> Any:
        """The one lease that is held, as that replica lists it."""
        (lease,) = (await self.api(instance, "GET", "/v1/leases"))["items"]
        return lease

    async def moved(self, before: Any, instance: str) -> None:
        """Return when that very lease is held on that replica, by a session that is not the one it was."""

        async def there() -> bool:
            held = await self.held(instance)
            return bool(held["instance"] == instance and held["session"] != before["session"])

        await self.until(there, BACK_S)
        assert (await self.held(instance))["lease"] == before["lease"]

    async def sessions(self, instance: str, *, of: str) -> list[Any]:
        """The open sessions on replica `of`, as `instance` lists them."""
        return [row for row in (await self.api(instance, "GET", "/v1/sessions"))["items"] if row["instance"] == of]

    async def audit_verifies(self, instance: str) -> None:
        """`audit verify --live` finds nothing wrong with the logs of all replicas."""
        command = ("audit", "verify", "--live", "--url", self.processes[instance].url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from broker.cli.main import main; main()", *command),
            *("--profile", str(self.folder / "profile.toml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()


@pytest.fixture
async def fleet(shared: Path, serving: Any, tcp_proxies: Any, house_parts: Any) -> AsyncIterator[Fleet]:
    """Replicas `one` and `two`; the load balancer sends to `one`."""
    credential = tomllib.loads((shared.parent / "profile.toml").read_text())["credential"]
    async with AsyncExitStack() as stack, tcp_proxies.proxying("127.0.0.1", 0) as balancer:
        made = Fleet(
            folder=shared.parent,
            credential=credential,
            serving=serving,
            stack=stack,
            balancer=balancer,
            processes={},
            until=house_parts.until,
        )
        await asyncio.gather(made.start("one"), made.start("two"))
        made.balance("one")
        yield made


@pytest.fixture
async def lease(fleet: Fleet) -> AsyncIterator[Any]:
    """A lease of github/ci with value `one`, held through the load balancer."""
    key = WorkerKey.generate(worker="ci-1")
    await fleet.put("one", "one")
    await fleet.api("one", "POST", "/v1/workers", {"worker": "ci-1", "public_key": key.public_key_b64})
    await fleet.api("one", "POST", "/v1/grants", {"subject": "worker:ci-1", "pattern": "github/*", "ttl_s": 60})
    url = f"http://127.0.0.1:{fleet.balancer.port}"
    async with tokenbroker_client.connect(url, key=key, worker="ci-1") as broker, broker.lease("github/ci") as lease:
        assert lease.value == "one"
        yield lease


async def test_a_killed_replicas_worker_goes_on_with_the_same_lease(fleet: Fleet, lease: Any) -> None:
    """On the other replica, without a gap in which it has no value; the dead one's session is closed on record, what it
    wrote verifies, and it comes back under its name.
    """
    before = await fleet.held("two")
    await fleet.processes["one"].kill()
    fleet.balance("two")
    assert lease.value == "one"
    await fleet.moved(before, "two")
    await fleet.put("two", "two")
    await fleet.until(lambda: lease.value == "two", BACK_S)
    await fleet.audit_verifies("two")

    async def buried() -> bool:
        return await fleet.sessions("two", of="one") == []

    await fleet.until(buried, BURIED_S)
    await fleet.start("one")
    await fleet.audit_verifies("one")
    assert (await fleet.held("one"))["lease"] == before["lease"]


async def test_a_killed_replica_starts_again_at_once(fleet: Fleet, lease: Any) -> None:
    """Its name is taken to be free when its row has stood still for a moment, long before the others bury it."""
    before = await fleet.held("two")
    await fleet.processes["one"].kill()
    await fleet.start("one")
    fleet.balance("one")
    await fleet.moved(before, "one")
    assert len(await fleet.sessions("two", of="one")) == 1
    await fleet.put("two", "two")
    await fleet.until(lambda: lease.value == "two", BACK_S)
    await fleet.audit_verifies("two")


async def test_draining_one_moves_its_workers(fleet: Fleet, lease: Any) -> None:
    """They go to the other with their leases, and nothing is left open behind them."""
    before = await fleet.held("two")
    fleet.balance("two")
    assert await fleet.processes["one"].stop() == 0
    await fleet.moved(before, "two")
    assert await fleet.sessions("two", of="one") == []
    await fleet.put("two", "two")
    await fleet.until(lambda: lease.value == "two", BACK_S)
    await fleet.audit_verifies("two")


async def test_who_has_lost_his_name_ends(fleet: Fleet) -> None:
    """A process that was stopped while another one took its name ends when it goes on, and says why."""
    frozen = fleet.processes["one"]
    os.kill(frozen.pid, signal.SIGSTOP)
    await fleet.start("one")
    os.kill(frozen.pid, signal.SIGCONT)
    async with asyncio.timeout(20):
        assert await frozen.process.wait() == 1
    assert "another process serves this database as 'one'" in frozen.output.read_text()
    await fleet.audit_verifies("one")
