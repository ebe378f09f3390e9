"""Losing the broker and finding it again: resume, goaway, silence, back-off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from tokenbroker_client import (
    Backoff,
    Broker,
    BrokerError,
    ChangeKind,
    ConnectionLost,
    LeaseRevoked,
    WorkerKey,
    connect,
)
from tokenbroker_client.testing import FakeBroker, HandClock
from tokenbroker_client.wire import AckStatus, CloseCode, ErrorCode

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.mark.parametrize("code", [None, CloseCode.GOING_AWAY, CloseCode.RESTARTING, CloseCode.TOO_MANY])
async def test_a_lost_connection_is_resumed(
    fake: FakeBroker, dial: Dial, eventually: Eventually, code: CloseCode | None
) -> None:
    """After a cut or an ordinary close the lease goes on in another session, and its value was never away."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.drop_connections(code)
        await eventually(lambda: not broker.connected)
        assert lease.value == "v1"
        await eventually(lambda: broker.connected)
        assert fake.requests == ["LeaseRequest", "Resume"]
        assert lease.value == "v1"
        assert len(fake.live_leases) == 1


async def test_a_rotation_during_the_outage_arrives_with_the_resume(fake: FakeBroker, dial: Dial) -> None:
    """What changed while the worker was away is applied, told and acknowledged as soon as it is back."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        fake.put("github/ci", "v2")
        await fake.drop_connections()
        change = await anext(changes)
        assert (change.kind, change.version, lease.value) == (ChangeKind.ROTATED, 2, "v2")
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED, version=2)


async def test_a_revocation_during_the_outage_arrives_with_the_resume(fake: FakeBroker, dial: Dial) -> None:
    """A lease that was revoked while the worker was away is wiped and acknowledged as soon as it is back."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        fake.leases[0].code = "revoked"
        await fake.drop_connections()
        await fake.wait_for_ack("github/ci", AckStatus.WIPED)
        with pytest.raises(LeaseRevoked):
            _ = lease.value


async def test_goaway_moves_the_client_at_its_slot(
    fake: FakeBroker, dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """The client sends no further request, hears pushes until its slot comes, then reconnects once and resumes."""
    async with dial(fake, elapsed=asyncio.get_running_loop().time) as broker, broker.lease("github/ci") as lease:
        began = asyncio.get_running_loop().time()
        await fake.goaway(reconnect_in_s=0.2)
        await eventually(lambda: not broker.connected)
        await fake.rotate("github/ci", "v2")
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED)
        assert fake.attempts == 1
        await eventually(lambda: broker.connected)
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert fake.attempts == 2
        assert lease.value == "v2"


async def test_a_slot_is_kept_when_the_broker_closes_first(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """A broker that is gone before the worker's slot has come is not called earlier for it."""
    async with dial(fake, elapsed=asyncio.get_running_loop().time) as broker:
        began = asyncio.get_running_loop().time()
        await fake.goaway(reconnect_in_s=0.2)
        await eventually(lambda: not broker.connected)
        await fake.drop_connections(CloseCode.RESTARTING)
        await eventually(lambda: broker.connected)
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert fake.attempts == 2


async def test_a_broker_that_sends_away_again_and_again_is_not_dialled_without_a_pause(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """A slot of no seconds is believed a few times in a row; then the client's own back-off decides."""
    long = Backoff(first_s=60.0, most_s=60.0, jitter=lambda: 1.0)
    async with dial(fake, backoff=long) as broker:
        for _ in range(3):
            await eventually(lambda: broker.connected)
            before = fake.attempts
            await fake.goaway(reconnect_in_s=0.0)
            await eventually(partial(lambda attempts: fake.attempts > attempts, before))
        await eventually(lambda: broker.connected)
        await fake.goaway(reconnect_in_s=0.0)
        await eventually(lambda: not broker.connected)
        await asyncio.sleep(0.3)
        assert fake.attempts == 4


async def test_a_request_during_goaway_goes_to_the_next_connection(fake: FakeBroker, dial: Dial) -> None:
    """An app that asks while the broker drains gets its lease a moment later, not an error."""
    async with dial(fake, elapsed=asyncio.get_running_loop().time) as broker:
        await fake.goaway(reconnect_in_s=0.05)
        await fake.send_text('{"type":"weather"}')
        async with broker.lease("github/ci") as lease:
            assert lease.value == "v1"


async def test_an_outage_during_a_request_is_bridged(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """A request that loses its connection is asked again on the next one, within its deadline."""
    async with dial(fake) as broker:
        fake.hold_answers()
        block = broker.lease("github/ci")
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(block.__aenter__())
            await eventually(lambda: fake.requests == ["LeaseRequest"])
            await fake.drop_connections()
            fake.release_answers()
        assert asked.result().value == "v1"
        await block.__aexit__(None, None, None)


async def test_a_request_without_a_connection_fails_in_time(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """When the broker stays away, a request raises within its deadline and says why there is no connection."""
    async with dial(fake, request_s=0.1) as broker:
        await fake.stop()
        await eventually(lambda: not broker.connected)
        with pytest.raises(ConnectionLost, match=r"no connection for 0.1 s"):
            await broker.lease("github/ci").__aenter__()


async def test_silence_counts_as_a_lost_connection(dial: Dial, eventually: Eventually) -> None:
    """When nothing is heard for three heartbeats, the client takes the connection for dead and dials again."""
    async with FakeBroker(heartbeat_s=0.05, pings=False) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake, elapsed=asyncio.get_running_loop().time) as broker, broker.lease("github/ci") as lease:
            await eventually(lambda: fake.attempts >= 2)
            await eventually(lambda: broker.connected)
            assert lease.value == "v1"


async def test_pings_keep_a_quiet_connection(dial: Dial) -> None:
    """A connection on which only pings arrive is alive."""
    async with FakeBroker(heartbeat_s=0.05) as fake:
        async with dial(fake, elapsed=asyncio.get_running_loop().time):
            await asyncio.sleep(0.4)  # eight heartbeats: real ones, because silence is what is tested
        assert fake.attempts == 1


async def test_a_process_that_slept_distrusts_what_it_finds(
    dial: Dial, clock: HandClock, eventually: Eventually
) -> None:
    """After a sleep of over three heartbeats a renewal that lies ready may be as old, so the client resumes instead."""
    async with FakeBroker(heartbeat_s=20) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake) as broker, broker.lease("github/ci") as lease:
            clock.advance(61)
            name = fake.leases[0].lease
            await fake.send_text(f'{{"type":"renewed","leases":[{{"lease":"{name}","ttl_s":300}}]}}')
            await eventually(lambda: not broker.connected)
            assert lease.remaining_s == 239.0


async def test_connect_waits_for_a_broker_that_is_not_up_yet(fake: FakeBroker, dial: Dial) -> None:
    """Containers that start together find each other."""
    await fake.stop()
    async with asyncio.TaskGroup() as tasks:
        opened = asyncio.Event()

        async def app() -> None:
            async with dial(fake):
                opened.set()

        tasks.create_task(app())
        await asyncio.sleep(0.05)  # a few refused attempts
        assert not opened.is_set()
        await fake.start()


async def test_connect_gives_up_in_time(fake: FakeBroker, dial: Dial) -> None:
    """Without a broker `connect` raises after `connect_s`, and says what the last attempt met."""
    await fake.stop()
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        async with dial(fake, connect_s=0.1):
            pass


async def test_a_broker_that_says_nothing_is_no_trap(unused_tcp_port: int) -> None:
    """A server that accepts and then is silent costs `connect_s`, not for ever."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", unused_tcp_port)
    async with server:
        with pytest.raises(ConnectionLost):
            async with connect(
                f"ws://127.0.0.1:{unused_tcp_port}",
                worker="ci-1",
                key=WorkerKey.generate(),
                connect_s=0.2,
            ):
                pass


async def test_attempts_are_spread_out(fake: FakeBroker, dial: Dial) -> None:
    """While the broker is away the client dials at the pace of its back-off and no faster."""
    steady = Backoff(first_s=0.05, most_s=0.05, jitter=lambda: 1.0)
    async with dial(fake, backoff=steady):
        fake.refuse_upgrades(503)
        await fake.drop_connections()
        await asyncio.sleep(0.3)  # six pauses of a real clock: how often is what is tested
        assert 3 <= fake.attempts <= 8


async def test_a_resume_that_cannot_be_served_is_repeated(
    fake: FakeBroker, dial: Dial, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the broker cannot answer a resume, the client states its leases again after a pause."""
    from tokenbroker_client.testing.fake_session import FakeSession
    from tokenbroker_client.wire import ClientFrame, Error, Resume

    refused: list[int] = []
    resume = FakeSession._resume

    async def refuse_twice(session: FakeSession, frame: ClientFrame) -> None:
        assert isinstance(frame, Resume)
        if len(refused) == 2:
            await resume(session, frame)
            return
        refused.append(frame.id)
        await session.send(Error(id=frame.id, code=ErrorCode.UNAVAILABLE, retry_after_s=0.0))

    monkeypatch.setattr(FakeSession, "_resume", refuse_twice)
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.drop_connections()
        await eventually(lambda: not broker.connected)
        await eventually(lambda: broker.connected)
        assert len(refused) == 2
        assert lease.value == "v1"
        assert len(fake.leases) == 1


def test_every_error_has_its_own_code() -> None:
    """Each class of the tree has a code of its own, and a first line that serves as its message."""

    def walk(kind: type[BrokerError]) -> list[type[BrokerError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in walk(child))]

    kinds = walk(BrokerError)
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(str(kind()) for kind in kinds)
