"""Getting in over a real socket, and everything that does not: deadlines, origins, refusals that all look the same."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from broker.audit.entries import SessionClosed, SessionOpened, SessionRefused
from broker.clock import FakeClock


async def test_a_proved_worker_is_welcomed(house: Any, wire: Any) -> None:
    """The welcome names session, worker, cluster, instance and heartbeat, and the session is on record before it."""
    async with wire.dial(house.url) as worker:
        welcome = await worker.handshake(house.workers["ci-1"])
        assert welcome == {
            "type": "welcome",
            "session": welcome["session"],
            "worker": "ci-1",
            "cluster": house.broker.root.cluster_id,
            "instance": house.settings.instance,
            "heartbeat_s": 20.0,
        }
        (row,) = await house.sessions()
        assert (row.session, row.worker, row.client, row.ended_at) == (welcome["session"], "ci-1", "wire/1", None)
        (opened,) = await house.entries(SessionOpened)
        assert (opened.session, opened.actor) == (row.session, "worker:ci-1")


class Refusals:
    """Each way to fail a handshake that an attacker may try against a running broker."""

    async def unknown_worker(self, worker: Any, who: Any, other: Any) -> Any:
        return await worker.handshake(other)

    async def wrong_key(self, worker: Any, who: Any, other: Any) -> Any:
        other.name = who.name
        return await worker.handshake(other)

    async def wrong_signature(self, worker: Any, who: Any, other: Any) -> Any:
        await worker.hello(who, os.urandom(32))
        await worker.send(type="prove", signature="A" * 86)
        return await worker.receive()

    async def wrong_binding(self, worker: Any, who: Any, other: Any) -> Any:
        return await worker.handshake(who, binding=b"m" * 32)

    async def other_method(self, worker: Any, who: Any, other: Any) -> Any:
        return await worker.hello(who, os.urandom(32), auth="jwt")

    async def jwt_proof(self, worker: Any, who: Any, other: Any) -> Any:
        await worker.hello(who, os.urandom(32))
        await worker.send(type="prove", jwt="e30.e30.e30")
        return await worker.receive()


WAYS = [name for name in vars(Refusals) if not name.startswith("_")]


async def test_every_refusal_looks_the_same_from_outside(house: Any, wire: Any) -> None:
    """One frame without a message, then close 4401; the audit log alone has the reason."""
    assert len(WAYS) == 6
    for way in WAYS:
        async with wire.dial(house.url) as worker:
            refused = await getattr(Refusals(), way)(worker, house.workers["ci-1"], wire.Identity("ghost"))
            assert refused == {"type": "error", "code": "unauthenticated"}, way
            assert await worker.close_code() == 4401
    reasons = {entry.reason for entry in await house.entries_within(SessionRefused, 4)}
    assert reasons == {"unknown_worker", "unknown_key", "signature", "method"}
    assert await house.sessions() == []


async def test_a_disabled_worker_is_refused_like_any_other(house: Any, wire: Any) -> None:
    """A right proof of a disabled worker gets what a wrong one gets."""
    await house.services.workers.disable("ci-1", actor="admin:root")
    await house.settled()
    async with wire.dial(house.url) as worker:
        assert await worker.handshake(house.workers["ci-1"]) == {"type": "error", "code": "unauthenticated"}
        assert await worker.close_code() == 4401
    (entry,) = await house.entries(SessionRefused)
    assert (entry.reason, entry.worker) == ("worker_disabled", "ci-1")


async def test_an_expired_worker_is_refused_like_any_other(open_house: Any, clock: FakeClock, wire: Any) -> None:
    """From its instant of expiry on, a worker is nobody."""
    async with open_house(clock=clock) as house:
        who = wire.Identity("ci-1")
        await house.register(who, expires_at=clock.now() + timedelta(seconds=60))
        async with wire.dial(house.url) as worker:
            assert (await worker.handshake(who))["type"] == "welcome"
        await clock.advance(60)
        async with wire.dial(house.url) as worker:
            assert await worker.handshake(who) == {"type": "error", "code": "unauthenticated"}
            assert await worker.close_code() == 4401


async def test_a_proof_made_for_another_cluster_is_refused(house: Any, wire: Any) -> None:
    """A broker that relays another's challenge gets a signature that names the cluster it pretended to be."""
    who = house.workers["ci-1"]
    async with wire.dial(house.url) as worker:
        nonce = os.urandom(32)
        challenge = await worker.hello(who, nonce)
        signed = wire.transcript("d" * 52, who.name, who.public_key, nonce, wire.unb64(challenge["nonce"]), b"")
        await worker.send(type="prove", signature=wire.b64(who.key.sign(signed)))
        assert await worker.receive() == {"type": "error", "code": "unauthenticated"}


async def test_a_recorded_handshake_does_not_play_twice(house: Any, wire: Any) -> None:
    """The broker's nonce differs on each connection, so a recorded proof is worth nothing."""
    who, nonce = house.workers["ci-1"], os.urandom(32)
    async with wire.dial(house.url) as worker, wire.dial(house.url) as thief:
        challenge = await worker.hello(who, nonce)
        broker_nonce = wire.unb64(challenge["nonce"])
        signed = wire.transcript(challenge["cluster"], who.name, who.public_key, nonce, broker_nonce, b"")
        proof = {"type": "prove", "signature": wire.b64(who.key.sign(signed))}
        await worker.send(**proof)
        assert (await worker.receive())["type"] == "welcome"
        assert (await thief.hello(who, nonce))["nonce"] != challenge["nonce"]
        await thief.send(**proof)
        assert (await thief.receive())["code"] == "unauthenticated"


@pytest.mark.parametrize("half", ["nothing", "hello"])
async def test_a_slow_handshake_is_closed_with_4408(open_house: Any, prepare: Any, wire: Any, half: str) -> None:
    """Whoever does not prove in time is let go, however far it came."""
    async with open_house(session={"handshake_s": 0.3}) as house:
        who = await prepare(house)
        async with wire.dial(house.url) as worker:
            if half == "hello":
                await worker.hello(who, os.urandom(32))
            assert await worker.close_code() == 4408


async def test_a_browser_is_refused_before_the_upgrade(house: Any, wire: Any) -> None:
    """A request with an Origin gets 403: pages must not speak with a broker on their visitor's machine."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with wire.dial(house.url, headers={"Origin": "https://evil.example"}):
            pass
    assert refused.value.status == 403


async def test_without_the_subprotocol_there_is_no_upgrade(house: Any) -> None:
    """A client of another protocol, or of none, learns it from the status."""
    async with aiohttp.ClientSession() as http:
        for protocols in ((), ("tokenbroker.v2",)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{house.url}/v1/connect", protocols=protocols)
            assert refused.value.status == 400


async def test_a_plain_get_is_no_server_error(house: Any) -> None:
    """Whoever opens the address without upgrading is told what it is, with a status of the 400s."""
    async with aiohttp.ClientSession() as http:
        for headers in ({}, {"Sec-WebSocket-Protocol": "tokenbroker.v1"}):
            async with http.get(f"{house.url}/v1/connect", headers=headers) as response:
                assert 400 <= response.status < 500


async def test_compression_is_not_agreed_to(house: Any) -> None:
    """Compressing secrets beside text that an attacker chooses gives the secret away by its length."""
    async with aiohttp.ClientSession() as http:
        offered = {"Sec-WebSocket-Extensions": "permessage-deflate"}
        socket = await http.ws_connect(
            f"{house.url}/v1/connect", protocols=["tokenbroker.v1"], compress=15, headers=offered
        )
        assert not socket.compress
        await socket.close()


async def test_an_address_that_fails_too_often_is_turned_away(open_house: Any, prepare: Any, wire: Any) -> None:
    """After so many failures even a right proof gets close 4429, before any cryptography."""
    async with open_house(session={"failures_max": 3}) as house:
        who = await prepare(house)
        for _ in range(3):
            async with wire.dial(house.url) as worker:
                assert (await worker.handshake(wire.Identity("ghost")))["code"] == "unauthenticated"
                assert await worker.close_code() == 4401
        async with wire.dial(house.url) as worker:
            assert await worker.close_code() == 4429
        assert who.name == "ci-1"


async def test_unproved_connections_are_bounded(open_house: Any, prepare: Any, wire: Any) -> None:
    """Beyond the bound, upgrades are refused with 503 and a time to come back; those who prove make room."""
    async with open_house(session={"handshakes_max": 2}) as house:
        who = await prepare(house)
        async with wire.dial(house.url) as first, wire.dial(house.url) as second:
            await asyncio.gather(*(each.hello(who, os.urandom(32)) for each in (first, second)))
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with wire.dial(house.url):
                    pass
            assert refused.value.status == 503
            assert refused.value.headers is not None
            assert refused.value.headers["Retry-After"] == "1"
        await house.until(lambda: house.broker.door._unproved == 0)
        async with wire.dial(house.url) as third:
            assert (await third.handshake(who))["type"] == "welcome"


async def test_one_source_does_not_take_every_place(open_house: Any, prepare: Any, wire: Any) -> None:
    """One address has its part of the unproved connections; the rest stays for others."""
    async with open_house(session={"handshakes_per_source_max": 1}) as house:
        who = await prepare(house)
        async with wire.dial(house.url) as first:
            await first.hello(who, os.urandom(32))
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with wire.dial(house.url):
                    pass
            assert refused.value.status == 503
        await house.until(lambda: house.broker.door._unproved == 0)
        assert not house.broker.door._unproved_by
        async with wire.dial(house.url) as second:
            assert (await second.handshake(who))["type"] == "welcome"


@pytest.mark.parametrize("behind", [{"bindings": (bytes(32),)}, {"shared_addresses": True}], ids=["ends TLS", "passes"])
async def test_behind_a_proxy_one_stranger_locks_nobody_out(
    open_house: Any, prepare: Any, wire: Any, behind: Any
) -> None:
    """All workers come from the proxy's address, so failures from there say nothing of whoever comes next."""
    async with open_house(session={"failures_max": 1, "handshakes_per_source_max": 1, **behind}) as house:
        who = await prepare(house)
        for _ in range(3):
            async with wire.dial(house.url) as stranger:
                assert (await stranger.handshake(wire.Identity("ghost")))["code"] == "unauthenticated"
        async with wire.dial(house.url) as slow, wire.dial(house.url) as worker:
            await slow.hello(who, os.urandom(32))
            assert (await worker.handshake(who))["type"] == "welcome"


async def test_one_who_does_not_answer_the_close_frees_its_place(open_house: Any, prepare: Any, wire: Any) -> None:
    """A refused peer that keeps its end open holds no place among the unproved, nor its connection, for long."""
    async with open_house(session={"handshakes_max": 1, "handshake_s": 0.2}) as house:
        who = await prepare(house)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
        writer.write(
            b"GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: tokenbroker.v1\r\n\r\n"
        )
        assert b"101" in await reader.readline()
        await house.until(lambda: house.broker.door._unproved == 1)
        await house.until(lambda: house.broker.door._unproved == 0, within_s=3)
        async with wire.dial(house.url) as worker:
            assert (await worker.handshake(who))["type"] == "welcome"
        writer.close()


async def test_whoever_leaves_in_the_middle_disturbs_nobody(
    house: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Cutting the connection at any step of the handshake leaves no session, no place taken, and no traceback."""
    who = house.workers["ci-1"]
    for words in (0, 1, 2):
        for last in (b'{"type":', b'{"type":"prove","signature":"' + b"A" * 86 + b'"}'):
            async with wire.dial(house.url) as worker:
                if words:
                    await worker.hello(who, os.urandom(32))
                if words > 1:
                    await worker.raw(last)
                worker.socket._response.connection.transport.abort()
    await house.until(lambda: house.broker.door._unproved == 0)
    assert [record for record in caplog.records if record.exc_info] == []
    assert await house.sessions() == []


async def test_failures_in_a_row_fill_no_log(house: Any, wire: Any) -> None:
    """Like refusals from one address within ten seconds make one audit entry."""
    for _ in range(5):
        async with wire.dial(house.url) as worker:
            await worker.handshake(wire.Identity("ghost"))
    assert len(await house.entries(SessionRefused)) == 1


async def test_a_session_that_cannot_be_recorded_is_not_opened(house: Any, wire: Any) -> None:
    """Without a durable row there is no welcome: `unavailable`, a time to come back, close 1001."""
    house.storage.refuse = lambda commit: bool(commit.inserts)
    async with wire.dial(house.url) as worker:
        refused = await worker.handshake(house.workers["ci-1"])
        assert (refused["type"], refused["code"]) == ("error", "unavailable")
        assert refused["retry_after_s"] > 0
        assert await worker.close_code() == 1001
    assert len(house.broker.sessions) == 0


async def test_the_end_of_a_session_is_on_record(house: Any, welcomed: Any) -> None:
    """Row and audit entry say when and with which code the connection ended."""
    async with welcomed(house):
        pass

    async def ended() -> bool:
        return all(row.ended_at for row in await house.sessions())

    await house.until(ended)
    (row,) = await house.sessions()
    (entry,) = await house.entries(SessionClosed)
    assert (row.close_code, entry.close_code, entry.session) == (1000, 1000, row.session)
    assert row.due_at is not None
