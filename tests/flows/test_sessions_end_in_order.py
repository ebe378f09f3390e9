"""How many sessions there may be, which one has to go, and how a broker that stops lets them down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.audit.entries import LeaseGranted, LogClosed
from broker.serving import serve
from broker.settings import load_settings


async def test_a_single_session_worker_that_comes_again_takes_over(house: Any, wire: Any, welcomed: Any) -> None:
    """The earlier connection is closed with 4409, and its leases can be resumed by the later one."""
    who = house.workers["single"] = wire.Identity("single")
    await house.register(who, single_session=True)
    await house.grant("worker:single", "github/*")
    async with welcomed(house, "single") as first:
        lease = await first.lease("github/ci")
        async with welcomed(house, "single") as second:
            assert await first.close_code() == 4409
            resumed = await second.ask("resume", leases=[{"lease": lease["lease"], "version": 1}])
            assert len(resumed["live"]) == 1
            assert (await second.ask("renew", leases=[lease["lease"]]))["gone"] == []


async def test_sessions_of_one_worker_are_bounded(open_house: Any, prepare: Any, wire: Any, welcomed: Any) -> None:
    """One more gets close 4429; another worker is not concerned; a free place can be taken."""
    async with open_house(server__sessions_per_worker="2") as house:
        await prepare(house)
        await prepare(house, worker="ci-2")
        async with welcomed(house), welcomed(house, "ci-2"):
            async with welcomed(house), wire.dial(house.url) as third:
                with pytest.raises(wire.Closed) as closed:
                    await third.handshake(house.workers["ci-1"])
                assert closed.value.code == 4429
            await house.until(lambda: len(house.broker.sessions) == 2)
            async with welcomed(house) as fourth:
                assert fourth.welcome["type"] == "welcome"


async def test_draining_gives_every_session_its_slot_and_then_closes_it(house: Any, welcomed: Any) -> None:
    """Each gets `goaway` with another time to reconnect, then 1012; their leases stay live for resuming."""
    async with welcomed(house) as one, welcomed(house) as two, welcomed(house) as three:
        lease = (await one.lease("github/ci"))["lease"]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(house.broker.sessions.drain())
            slots = []
            for worker in (one, two, three):
                pushed = await worker.push()
                assert (pushed["type"], pushed["reason"]) == ("goaway", "draining")
                slots.append(pushed["reconnect_in_s"])
                assert await worker.close_code() == 1012
            assert len(set(slots)) == 3
            assert all(0 <= slot <= 10 for slot in slots)
    assert (await house.row(lease)).state == "live"
    assert {row.close_code for row in await house.sessions()} == {1012}


async def test_a_draining_broker_takes_nobody_in(house: Any, wire: Any) -> None:
    """Upgrades get 503 with a time to come back, so that load balancers and clients go elsewhere."""
    await house.broker.sessions.drain()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with wire.dial(house.url):
            pass
    assert refused.value.status == 503


async def test_requests_on_their_way_are_answered_before_the_broker_goes(
    open_house: Any, prepare: Any, welcomed: Any
) -> None:
    """A grant whose commit takes a moment is answered, then the connection is closed."""
    async with open_house() as house:
        await prepare(house)
        async with welcomed(house) as worker, asyncio.TaskGroup() as tasks:
            house.storage.late_s = 0.3
            await worker.send(type="lease", id=1, token="github/ci")
            await house.until(lambda: any(session.in_flight for session in house.broker.sessions))
            tasks.create_task(house.broker.sessions.drain())
            assert (await worker.answer(1))["type"] == "granted"
            assert await worker.close_code() == 1012


async def test_a_broker_that_is_told_to_stop_lets_everything_down_in_order(
    open_house: Any, config: Path, prepare: Any, wire: Any
) -> None:
    """Workers get `goaway` and 1012, sessions are closed on record, the log is closed and verifies, leases live on."""
    async with open_house() as house:
        who = await prepare(house)
    settings = load_settings(config, {"TOKENBROKER_SERVER__LISTEN": "127.0.0.1:0"})
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(settings, stop=stop, ready=listening.set_result))
        async with wire.dial(await listening) as worker:
            assert (await worker.handshake(who))["type"] == "welcome"
            lease = (await worker.lease("github/ci"))["lease"]
            stop.set()
            assert (await worker.push())["type"] == "goaway"
            assert await worker.close_code() == 1012
    async with open_house() as house:
        assert [row.close_code for row in await house.sessions()] == [1012]
        assert (await house.row(lease)).state == "live"
        closings = await house.entries(LogClosed)
        assert [entry.lease for entry in await house.entries(LeaseGranted)] == [lease]
        assert len(closings) == 3
        assert (await house.verified()).problems == []


async def test_nothing_is_held_by_a_session_that_is_gone(house: Any, welcomed: Any) -> None:
    """Closing in the midst of hundreds of requests leaves nothing in memory."""
    for number in range(40):
        await house.put(f"github/t{number}")
    for _ in range(5):
        async with welcomed(house) as worker:
            for number in range(40):
                await worker.send(type="lease", id=number, token=f"github/t{number}")
            if _ % 2:
                await worker.answer(7)
            worker.socket._response.connection.transport.abort()
    await house.until(lambda: len(house.broker.sessions) == 0)
    await house.broker.desk.drained()
    context = house.broker.context
    assert (len(context.holdings), context.wheel._slots, house.broker.sessions._by_worker) == (0, {}, {})
    assert house.broker.sessions._codes == {}


async def test_a_worker_that_does_not_answer_pings_is_let_go(open_house: Any, prepare: Any, wire: Any) -> None:
    """Liveness is the broker's to find out: a silent peer's session ends within a heartbeat and a half."""
    async with open_house(server__heartbeat="200ms") as house:
        who = await prepare(house)
        async with aiohttp.ClientSession() as http:
            socket = await http.ws_connect(f"{house.url}/v1/connect", protocols=["tokenbroker.v1"], autoping=False)
            worker = wire.Wire(socket, b"")
            assert (await worker.handshake(who))["heartbeat_s"] == 0.2
            await house.until(lambda: len(house.broker.sessions) == 0, within_s=2)
            await socket.close()
