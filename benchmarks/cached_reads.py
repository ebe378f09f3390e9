"""CPU of the client where an app reads a secret: ours, against one that caches what AWS Secrets Manager gave it.

Theirs is the style of `aws-secretsmanager-caching`, and not that package: a value that is younger than its time to live
is looked up in a dictionary, any other one is read with GetSecretValue, here by aiobotocore from a moto server. Ours: a
lease and its release, and reading the value of a lease that is held, which is always the current one. All of it runs in
this process, in turns; broker and moto are others. Values have the same size.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

import tokenbroker_client
from benchmarks.cluster import VALUE_BYTES, fill, worker_key
from benchmarks.figures import Figure, alone, ratio
from benchmarks.process import await_heads, child, serving
from benchmarks.replica_leases import part
from tokenbroker_client import WorkerKey

_SECRETS: Final = 50
_LOOK_UPS: Final = 20_000
_TTL_S: Final = 3600.0
"""That package's refresh interval unless an app says otherwise."""


class Cached:
    """Values by the name of the secret, each read again once it is older than `ttl_s`. 0: each time."""

    def __init__(self, *, client: Any, ttl_s: float) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._held: dict[str, tuple[str, float]] = {}

    async def get(self, name: str) -> str:
        """The secret's value."""
        known = self._held.get(name)
        now = time.monotonic()
        if known is None or now - known[1] >= self._ttl_s:
            answer = await self._client.get_secret_value(SecretId=name)
            known = self._held[name] = (answer["SecretString"], now)
        return known[0]


@dataclass(kw_only=True, slots=True)
class _Us:
    """Microseconds of this process for each call, round by round."""

    asked: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    leased: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """What a read costs that goes to the server, and one that does not."""
    config = asyncio.run(fill(folder / "reads", tokens=_SECRETS, workers=1))
    with part("moto").serving() as moto, child(*serving(config)) as broker:
        await_heads(broker, _SECRETS)
        us = uvloop.run(_measure(broker.url, moto.url, rounds=3 if quick else 7))
    asked, cached, leased, held = (statistics.median(each) for each in (us.asked, us.cached, us.leased, us.held))
    return [
        Figure(
            name="GetSecretValue",
            question="CPU of a caching client of Secrets Manager for a read that its cache does not have",
            value=ratio(us.asked, us.leased),
            unit="leases",
            goal=None,
            detail=f"aiobotocore {version('aiobotocore')}, GetSecretValue {asked:.0f} us; "
            f"our client's lease and its release {leased:.0f} us",
        ),
        Figure(
            name="held value",
            question="CPU of our client for reading the value of a lease that is held",
            value=ratio(us.held, us.cached),
            unit="look-ups in that cache",
            goal=None,
            detail=f"held lease {held:.2f} us, look-up {cached:.2f} us",
        ),
    ]


async def _measure(broker_url: str, moto_url: str, *, rounds: int) -> _Us:
    us = _Us()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            get_session().create_client(
                "secretsmanager",
                region_name=part("moto").REGION,
                endpoint_url=moto_url,
                aws_access_key_id="for-measuring",
                aws_secret_access_key="for-measuring",
                config=AioConfig(tcp_keepalive=True),
            )
        )
        names = [f"bench/t{number}" for number in range(_SECRETS)]
        for name in names:
            await client.create_secret(Name=name, SecretString=os.urandom(VALUE_BYTES // 2).hex())
        asking, cache = Cached(client=client, ttl_s=0.0), Cached(client=client, ttl_s=_TTL_S)
        broker = await stack.enter_async_context(
            tokenbroker_client.connect(broker_url, worker="w0", key=WorkerKey(worker_key(0)))
        )
        held = await stack.enter_async_context(broker.lease(names[0]))

        async def leased(name: str) -> None:
            async with broker.lease(name) as lease:
                assert lease.value

        async def read(_: str) -> str:
            return held.value

        for _ in range(rounds + 1):
            us.asked.append(await _each_us(asking.get, names))
            us.leased.append(await _each_us(leased, names[1:]))
            us.cached.append(await _each_us(cache.get, names[:1] * _LOOK_UPS))
            us.held.append(await _each_us(read, names[:1] * _LOOK_UPS))
    for each in (us.asked, us.leased, us.cached, us.held):
        del each[0]  # it warms up
    return us


async def _each_us(call: Callable[[str], Awaitable[object]], names: list[str]) -> float:
    """One call after another."""
    started = time.process_time()
    for name in names:
        await call(name)
    return (time.process_time() - started) / len(names) * 1e6


if __name__ == "__main__":
    alone(figures)
