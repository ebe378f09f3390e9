"""Losing the broker and finding it again: resume, offline grace, back-off, refusals that last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp import web

from tokenbroker_client import (
    Backoff,
    Broker,
    BrokerError,
    ChangeKind,
    ConnectionLost,
    Forbidden,
    LeaseDenied,
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
