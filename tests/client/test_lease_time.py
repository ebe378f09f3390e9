"""How long a value may be read: offline grace, renewals, ceilings, and what follows an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tokenbroker_client import (
    Broker,
    ChangeKind,
    LeaseDenied,
    LeaseExpired,
)
from tokenbroker_client.testing import FakeBroker, HandClock
from tokenbroker_client.wire import ErrorCode

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., AbstractAsyncContextManager[Broker]]


async def test_the_grace_ends_exactly_with_the_lease(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """Offline the value is readable to the lease's last instant, and wiped at the first reading after it."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.stop()
        await eventually(lambda: not broker.connected)
        held = lease._holding._value
        clock.advance(299.999)
        assert lease.value == "v1"
        clock.advance(0.001)
        with pytest.raises(LeaseExpired):
            _ = lease.value
        assert lease.remaining_s == 0.0
        assert held is not None
        assert held.reveal() == b""


async def test_an_expired_lease_is_asked_for_again(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """After an outage longer than the lease the app reads on, as soon as the broker is back and grants it again."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        await fake.stop()
        await eventually(lambda: not broker.connected)
        clock.advance(301)
        with pytest.raises(LeaseExpired):
            _ = lease.value
        fake.put("github/ci", "v2")
        await fake.start()
        change = await anext(changes)
        assert (change.kind, lease.value, lease.version) == (ChangeKind.RESTORED, "v2", 2)


async def test_a_lease_that_ran_out_unseen_is_asked_for_again(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """An app that only waits for changes during a long outage is told when there is a value again."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        await fake.stop()
        await eventually(lambda: not broker.connected)
        clock.advance(301)
        await fake.start()
        assert (await anext(changes)).kind is ChangeKind.RESTORED
        assert lease.value == "v1"


async def test_a_rotation_after_the_end_brings_no_old_value_back(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """When a rotation and a renewal reach a lease that ran out unseen, nobody reads what was rotated away."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        clock.advance(301)
        await fake.rotate("github/ci", "v2")
        await fake.renew()
        assert (await anext(changes)).kind is ChangeKind.RESTORED
        assert lease.value == "v2"


async def test_a_lease_that_the_broker_lost_is_asked_for_again(fake: FakeBroker, dial: Dial) -> None:
    """When only the broker's clock says that the lease is over, the client believes it and asks again."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        fake.leases[0].code = "expired"
        await fake.drop_connections()
        assert (await anext(changes)).kind is ChangeKind.RESTORED
        assert lease.value == "v1"
        assert len(fake.live_leases) == 1


async def test_whoever_stood_in_line_stands_there_again(fake: FakeBroker, dial: Dial) -> None:
    """A lease that was lost is asked for with the same wait: else all who stand in line would be served before it."""
    async with dial(fake) as broker, broker.lease("github/ci", wait_s=30) as lease:
        changes = lease.changes()
        fake.leases[0].code = "expired"
        await fake.drop_connections()
        assert (await anext(changes)).kind is ChangeKind.RESTORED
        (again,) = fake.live_leases
        assert again.wait_s == 30


async def test_an_expired_lease_that_is_denied_is_over(fake: FakeBroker, dial: Dial, clock: HandClock) -> None:
    """When the broker does not grant it again, reading says so, and nobody asks any more."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        fake.deny("github/ci")
        clock.advance(301)
        with pytest.raises(LeaseExpired):
            _ = lease.value
        assert (await anext(changes)).kind is ChangeKind.REVOKED
        for _ in range(3):
            with pytest.raises(LeaseDenied):
                _ = lease.value
        assert fake.requests.count("LeaseRequest") == 2


async def test_asking_again_waits_as_it_is_told(fake: FakeBroker, dial: Dial, clock: HandClock) -> None:
    """A broker that cannot serve is asked again after a pause, until it can."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        fake.refuse_next(ErrorCode.UNAVAILABLE, times=2, retry_after_s=0.05)
        clock.advance(301)
        with pytest.raises(LeaseExpired):
            _ = lease.value
        began = asyncio.get_running_loop().time()
        assert (await anext(changes)).kind is ChangeKind.RESTORED
        assert asyncio.get_running_loop().time() - began >= 0.1
        assert fake.requests.count("LeaseRequest") == 4


async def test_renewals_extend_the_lease(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """The broker renews, and the client sends nothing for it."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        clock.advance(150)
        await fake.renew()
        await eventually(lambda: lease.remaining_s == 300.0)
        clock.advance(299)
        assert lease.value == "v1"
        assert fake.requests == ["LeaseRequest"]


async def test_time_counts_from_the_request(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """However long an answer takes, the client never believes in more time than the broker gave."""
    async with dial(fake) as broker:
        fake.hold_answers()
        block = broker.lease("github/ci")
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(block.__aenter__())
            await eventually(lambda: fake.requests == ["LeaseRequest"])
            clock.advance(100)
            fake.release_answers()
        assert asked.result().remaining_s == 200.0
        await block.__aexit__(None, None, None)


async def test_a_lease_at_its_ceiling_is_replaced(dial: Dial, clock: HandClock, eventually: Eventually) -> None:
    """An app that runs longer than any lease may keeps its value: the client gives the lease back and takes another."""
    async with FakeBroker(ttl_s=300, max_ttl_s=400, heartbeat_s=3600, elapsed=clock) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake) as broker, broker.lease("github/ci") as lease:
            clock.advance(200)
            await fake.renew()
            await eventually(lambda: len(fake.leases) == 2)
            await eventually(lambda: lease.remaining_s == 300.0)
            assert fake.requests == ["LeaseRequest", "Release", "LeaseRequest"]
            assert [entry.code for entry in fake.leases] == ["released", None]
            assert lease.value == "v1"


async def test_a_lease_that_is_never_renewed_is_replaced_at_half_its_time(
    dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """A lease as long as its ceiling gets no renewal; the client replaces it when it is read in its second half."""
    async with FakeBroker(ttl_s=300, max_ttl_s=300, heartbeat_s=3600, elapsed=clock) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake) as broker, broker.lease("github/ci") as lease:
            clock.advance(149)
            assert lease.value == "v1"
            assert fake.requests == ["LeaseRequest"]
            clock.advance(1)
            assert lease.value == "v1"
            await eventually(lambda: lease.remaining_s == 300.0)
            assert fake.requests == ["LeaseRequest", "Release", "LeaseRequest"]


async def test_a_lease_that_nobody_reads_is_replaced_when_the_broker_is_heard(
    dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """The broker's own heartbeat, not a timer, lets the client look after a lease that is read but once an hour."""
    async with FakeBroker(ttl_s=300, max_ttl_s=300, heartbeat_s=3600, elapsed=clock) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake) as broker, broker.lease("github/ci") as lease:
            clock.advance(200)
            await fake.send_text('{"type":"weather"}')
            await eventually(lambda: lease.remaining_s == 300.0)
            assert len(fake.leases) == 2


async def test_a_value_that_ran_out_unread_is_wiped_when_the_broker_is_heard(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """Nobody need read an expired value for it to be overwritten."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        held = lease._holding._value
        assert held is not None
        clock.advance(301)
        await fake.send_text('{"type":"weather"}')
        await eventually(lambda: held.reveal() == b"")
        await eventually(lambda: lease.remaining_s == 300.0)
        assert lease.value == "v1"


async def test_the_value_stays_while_the_lease_is_replaced(
    dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """Between giving back and being granted again the app reads on, within the time it was given."""
    async with FakeBroker(ttl_s=300, max_ttl_s=400, heartbeat_s=3600, elapsed=clock) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake) as broker, broker.lease("github/ci") as lease:
            clock.advance(200)
            fake.refuse_next(ErrorCode.UNAVAILABLE, retry_after_s=0.0)
            await fake.renew()
            await eventually(lambda: fake.requests.count("LeaseRequest") == 2)
            assert lease.value == "v1"
            await eventually(lambda: lease.remaining_s == 300.0)


async def test_a_grant_that_ends_is_not_asked_for_over_and_over(
    dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """When another lease gives no more time than the last one had, the client leaves it at that."""
    async with FakeBroker(heartbeat_s=3600, elapsed=clock) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake) as broker, broker.lease("github/ci") as lease:
            fake.limit_leases(until_s=100)
            await fake.renew()
            await eventually(lambda: len(fake.leases) == 2)
            for left_s in (80, 50, 20):
                clock.advance(left_s - 10)
                fake.limit_leases(until_s=left_s)
                await fake.renew()
                await eventually(lambda left_s=left_s: lease.remaining_s == left_s)
            assert len(fake.leases) == 2
