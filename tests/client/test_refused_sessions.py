"""Brokers that will not have a worker, and servers that are no broker: one attempt, and a typed error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp import web

from tokenbroker_client import (
    Broker,
    ChangeKind,
    Forbidden,
    LeaseExpired,
    LeaseRevoked,
    NotABroker,
    SessionRefused,
    Superseded,
    Unauthenticated,
    WorkerKey,
    WrongCluster,
    connect,
)
from tokenbroker_client.testing import FakeBroker, HandClock
from tokenbroker_client.wire import CloseCode

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., AbstractAsyncContextManager[Broker]]


REFUSALS = [
    (CloseCode.UNAUTHENTICATED, Unauthenticated),
    (CloseCode.FORBIDDEN, Forbidden),
    (CloseCode.SUPERSEDED, Superseded),
]


@pytest.mark.parametrize(("code", "error"), REFUSALS)
async def test_a_lasting_refusal_ends_the_attempts(
    fake: FakeBroker, dial: Dial, eventually: Eventually, code: CloseCode, error: type[SessionRefused]
) -> None:
    """After such a close the client makes no further attempt; requests and readers hear why."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        await fake.drop_connections(code)
        await eventually(lambda: broker.failure is not None)
        assert isinstance(broker.failure, error)
        with pytest.raises(error):
            await broker.lease("github/ci").__aenter__()
        if error is Forbidden:
            assert [change.kind async for change in changes] == [ChangeKind.REVOKED]
        else:
            with pytest.raises(error):
                await anext(changes)
        await asyncio.sleep(0.1)  # twice the longest back-off
        assert fake.attempts == 1


async def test_a_forbidden_worker_loses_its_values(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """A worker that is disabled while connected stops reading at once, not when its leases end."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.disable("ci-1")
        await eventually(lambda: broker.failure is not None)
        with pytest.raises(LeaseRevoked):
            _ = lease.value


async def test_a_superseded_worker_reads_to_the_end_of_its_lease(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """Losing the session for good is no revocation: the grace is the same as in an outage."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.drop_connections(CloseCode.SUPERSEDED)
        await eventually(lambda: broker.failure is not None)
        assert lease.value == "v1"
        clock.advance(300)
        with pytest.raises(LeaseExpired):
            _ = lease.value


async def test_an_unknown_worker_is_refused_at_once(fake: FakeBroker, dial: Dial) -> None:
    """A wrong key raises from `connect`, after one attempt."""
    with pytest.raises(Unauthenticated):
        async with dial(fake, key=WorkerKey.generate(worker="ci-1")):
            pass
    assert fake.attempts == 1


async def test_a_disabled_worker_is_refused_at_once(fake: FakeBroker, dial: Dial) -> None:
    """A disabled worker raises from `connect`, after one attempt."""
    await fake.disable("ci-1")
    with pytest.raises(Forbidden):
        async with dial(fake):
            pass
    assert fake.attempts == 1


async def test_another_cluster_is_refused_before_anything_is_signed(fake: FakeBroker, dial: Dial) -> None:
    """A pinned client gives no signature to a broker of another cluster."""
    with pytest.raises(WrongCluster, match=r"'fake-cluster'.*'mine'"):
        async with dial(fake, cluster="mine"):
            pass
    assert fake.attempts == 1


async def test_the_cluster_cannot_change_under_a_client(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """A client without a pin stays with the cluster it met first."""
    key = WorkerKey.generate(worker="ci-1")
    fake.register("ci-1", key.public_key)
    async with dial(fake, key=key) as broker:
        fake._state.cluster = "other"
        await fake.drop_connections()
        await eventually(lambda: isinstance(broker.failure, WrongCluster))


@pytest.mark.parametrize("status", [200, 302, 403, 404])
async def test_what_is_no_broker_is_refused_at_once(fake: FakeBroker, dial: Dial, status: int) -> None:
    """A wrong URL raises from `connect`, after one attempt; redirects are not followed."""
    fake.refuse_upgrades(status)
    with pytest.raises(NotABroker, match=str(status)):
        async with dial(fake):
            pass
    assert fake.attempts == 1


@pytest.mark.parametrize("status", [404, 503])
async def test_a_known_broker_may_misbehave_for_a_while(
    fake: FakeBroker, dial: Dial, eventually: Eventually, status: int
) -> None:
    """Once there was a session, whatever a proxy answers in between is an outage."""
    async with dial(fake) as broker:
        fake.refuse_upgrades(status)
        await fake.drop_connections()
        await eventually(lambda: fake.attempts >= 3)
        fake.refuse_upgrades(None)
        await eventually(lambda: broker.connected)


async def test_a_redirect_is_not_followed(fake: FakeBroker, dial: Dial, unused_tcp_port: int) -> None:
    """A server cannot send a worker elsewhere: the host and the TLS that were configured are the ones that count."""

    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{fake.url.replace('ws', 'http')}/v1/connect")

    app = web.Application()
    app.router.add_get("/v1/connect", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        with pytest.raises(NotABroker, match="redirect"):
            async with connect(f"ws://127.0.0.1:{unused_tcp_port}", key=fake.worker_key("ci-1")):
                pass
    finally:
        await runner.cleanup()
    assert fake.attempts == 0
