"""A fake broker on a real socket, a clock that stands still, and a client that retries without waiting long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tokenbroker_client import Backoff, Broker, connect
from tokenbroker_client.testing import FakeBroker, HandClock

QUICK = Backoff(first_s=0.01, most_s=0.05)


@pytest.fixture
def clock() -> HandClock:
    """Return a clock for the client."""
    return HandClock()


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    """Return a listening fake broker that has one token, and heartbeats so long that time can be moved by hand."""
    async with FakeBroker(heartbeat_s=3600.0) as broker:
        broker.put("github/ci", "v1")
        yield broker


Dial = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.fixture
def dial(clock: HandClock) -> Dial:
    """Return `connect` for a registered worker, with the hand clock."""

    def dial_fake(fake: FakeBroker, **options: Any) -> AbstractAsyncContextManager[Broker]:
        if "key" not in options:
            options["key"] = fake.worker_key("ci-1")
        return connect(fake.url, **{"backoff": QUICK, "elapsed": clock, "request_s": 3.0, **options})

    return dial_fake


async def _eventually(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until the condition holds; fail after five seconds."""
    async with asyncio.timeout(5):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Return a wait for what other tasks bring about."""
    return _eventually
