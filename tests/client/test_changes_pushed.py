"""Rotation and revocation: what an app is told, and what the broker is told in return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tokenbroker_client import (
    Broker,
    Change,
    ChangeKind,
    ChangeRejected,
    LeaseGone,
    LeaseReleased,
    LeaseRevoked,
)
from tokenbroker_client.testing import FakeBroker, HandClock
from tokenbroker_client.wire import AckStatus

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., AbstractAsyncContextManager[Broker]]


async def test_a_rotation_swaps_the_value_and_is_acknowledged(fake: FakeBroker, dial: Dial) -> None:
    """Without a handler the change is applied as soon as the value is swapped in."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        assert await fake.rotate("github/ci", "v2") == 2
        ack = await fake.wait_for_ack("github/ci", AckStatus.APPLIED)
        assert (ack.version, ack.detail) == (2, None)
        assert (lease.value, lease.version) == ("v2", 2)


async def test_the_old_value_is_overwritten(fake: FakeBroker, dial: Dial) -> None:
    """What a rotation replaces is wiped from the place that held it."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        old = lease._holding._value
        await fake.rotate("github/ci", "v2")
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED)
        assert old is not None
        assert old.reveal() == b""


async def test_a_handler_runs_before_the_acknowledgement(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """The broker is told `applied` only when the app's own work is done, and the handler sees the value in place."""
    seen: list[tuple[Change, str]] = []
    go_on = asyncio.Event()

    async with dial(fake) as broker, broker.lease("github/ci") as lease:

        @lease.on_change
        async def apply(change: Change) -> None:
            seen.append((change, lease.value))
            await go_on.wait()

        await fake.rotate("github/ci", "v2", previous_valid_s=120)
        await eventually(lambda: bool(seen))
        for _ in range(20):
            await asyncio.sleep(0)
        assert fake.acks == []
        go_on.set()
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED, version=2)
    change = Change(kind=ChangeKind.ROTATED, token="github/ci", version=2, previous_valid_s=120)
    assert seen == [(change, "v2")]


async def test_a_plain_function_is_a_handler(fake: FakeBroker, dial: Dial) -> None:
    """A handler need not be a coroutine function, and may be given with the request."""
    seen: list[int] = []
    async with dial(fake) as broker, broker.lease("github/ci", on_change=lambda change: seen.append(change.version)):
        await fake.rotate("github/ci", "v2")
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED)
    assert seen == [2]


async def test_a_handler_that_raises_acknowledges_failure(fake: FakeBroker, dial: Dial) -> None:
    """The broker learns that it failed and the exception's type, whose message may hold the value; the lease lives."""

    async def apply(_change: Change) -> None:
        raise OSError("cannot log in with password v2")

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply) as lease:
        await fake.rotate("github/ci", "v2")
        ack = await fake.wait_for_ack("github/ci", AckStatus.FAILED)
        assert (ack.version, ack.detail) == (2, "OSError")
        assert lease.value == "v2"
        await fake.rotate("github/ci", "v3")
        await fake.wait_for_ack("github/ci", AckStatus.FAILED, version=3)


async def test_a_handler_can_say_why(fake: FakeBroker, dial: Dial) -> None:
    """The message of a ChangeRejected travels, cut to what an acknowledgement may hold."""

    def apply(_change: Change) -> None:
        raise ChangeRejected("the pool is draining " + "x" * 500)

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply):
        await fake.rotate("github/ci", "v2")
        ack = await fake.wait_for_ack("github/ci", AckStatus.FAILED)
    assert ack.detail is not None
    assert ack.detail.startswith("the pool is draining")
    assert len(ack.detail) == 256


@pytest.mark.parametrize("secret", ["a-canary", "quote'd\n\x01canary"])
async def test_a_reason_that_holds_the_value_does_not_travel(fake: FakeBroker, dial: Dial, secret: str) -> None:
    """Even a message that is meant for the operator is dropped when the value is in it, plain or escaped."""
    shapes = [secret, repr(secret.encode())[2:-1], secret.encode().hex()]

    def apply(_change: Change) -> None:
        raise ChangeRejected(f"refused {shapes[len(fake.acks) % 3]}")

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply):
        for version in (2, 3, 4):
            await fake.rotate("github/ci", secret)
            ack = await fake.wait_for_ack("github/ci", AckStatus.FAILED, version=version)
            assert ack.detail == "ChangeRejected"


async def test_a_handler_that_cancels_itself_has_failed(fake: FakeBroker, dial: Dial) -> None:
    """A CancelledError of the handler's own making neither ends the client nor passes for success."""

    async def apply(_change: Change) -> None:
        raise asyncio.CancelledError

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply) as lease:
        await fake.rotate("github/ci", "v2")
        assert (await fake.wait_for_ack("github/ci", AckStatus.FAILED)).detail == "CancelledError"
        assert lease.value == "v2"


async def test_a_busy_handler_sees_only_the_latest_change(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """Changes that come while a handler runs are not queued up; the last one is delivered."""
    seen: list[int] = []
    go_on = asyncio.Event()

    async def apply(change: Change) -> None:
        seen.append(change.version)
        await go_on.wait()

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply) as lease:
        await fake.rotate("github/ci", "v2")
        await eventually(lambda: seen == [2])
        await fake.rotate("github/ci", "v3")
        await fake.rotate("github/ci", "v4")
        await eventually(lambda: lease.version == 4)
        go_on.set()
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED, version=4)
    assert seen == [2, 4]
    assert fake.acks[-1].version == 4


async def test_every_block_of_a_token_has_its_say(fake: FakeBroker, dial: Dial) -> None:
    """With two blocks on a token one acknowledgement says what both handlers did."""
    seen: list[str] = []

    def fine(_change: Change) -> None:
        seen.append("fine")

    def fails(_change: Change) -> None:
        seen.append("fails")
        raise ChangeRejected("not here")

    async with (
        dial(fake) as broker,
        broker.lease("github/ci", on_change=fails),
        broker.lease("github/ci", on_change=fine),
    ):
        await fake.rotate("github/ci", "v2")
        assert (await fake.wait_for_ack("github/ci", AckStatus.FAILED)).detail == "not here"
    assert seen == ["fails", "fine"]
    assert len(fake.acks) == 1


async def test_changes_can_be_iterated(fake: FakeBroker, dial: Dial) -> None:
    """A reader gets each change from the moment it began, and the end after a revocation."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        await fake.rotate("github/ci", "v2")
        assert await anext(changes) == Change(kind=ChangeKind.ROTATED, token="github/ci", version=2)
        await fake.revoke("github/ci", reason="leaked")
        change = await anext(changes)
        assert (change.kind, change.reason) == (ChangeKind.REVOKED, "leaked")
        assert [change async for change in changes] == []


async def test_a_slow_reader_gets_the_latest_change_only(fake: FakeBroker, dial: Dial) -> None:
    """Changes do not pile up for a reader that is elsewhere."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        changes = lease.changes()
        for version in (2, 3, 4):
            await fake.rotate("github/ci", f"v{version}")
            await fake.wait_for_ack("github/ci", AckStatus.APPLIED, version=version)
        assert (await anext(changes)).version == 4


async def test_a_reader_ends_with_its_block(fake: FakeBroker, dial: Dial) -> None:
    """Nobody waits for changes of a lease that was given back."""
    async with dial(fake) as broker:
        async with broker.lease("github/ci") as lease:
            changes = lease.changes()
        with pytest.raises(LeaseReleased):
            await anext(changes)


async def test_a_revocation_wipes_and_is_acknowledged(fake: FakeBroker, dial: Dial) -> None:
    """A revoked value is gone from memory and from the app's reach, and the broker is told."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        held = lease._holding._value
        await fake.revoke("github/ci", reason="leaked")
        ack = await fake.wait_for_ack("github/ci", AckStatus.WIPED)
        assert ack.version is None
        with pytest.raises(LeaseRevoked, match="leaked") as caught:
            _ = lease.value
        assert isinstance(caught.value, LeaseGone)
        assert held is not None
        assert held.reveal() == b""
        assert lease.remaining_s == 0.0


async def test_a_revoked_lease_is_not_asked_for_again(fake: FakeBroker, dial: Dial) -> None:
    """What an operator took back stays away, until the app itself opens another block."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.revoke("github/ci")
        await fake.wait_for_ack("github/ci", AckStatus.WIPED)
        await fake.drop_connections()
        await fake.wait_for_session()
        with pytest.raises(LeaseRevoked):
            _ = lease.value
        assert "LeaseRequest" not in fake.requests[fake.requests.index("Ack") :]
        async with broker.lease("github/ci") as again:
            assert again.value == "v1"
            with pytest.raises(LeaseRevoked):
                _ = lease.value


async def test_a_handler_hears_of_a_revocation_before_the_broker_does(fake: FakeBroker, dial: Dial) -> None:
    """`wiped` includes what the app did with its own copies."""
    seen: list[tuple[ChangeKind, int]] = []

    def apply(change: Change) -> None:
        seen.append((change.kind, len(fake.acks)))

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply):
        await fake.revoke("github/ci")
        await fake.wait_for_ack("github/ci", AckStatus.WIPED)
    assert seen == [(ChangeKind.REVOKED, 0)]


async def test_a_handler_that_cannot_wipe_says_so(fake: FakeBroker, dial: Dial) -> None:
    """An app that still uses a revoked value is listed as such, with a version and without its own words."""

    def apply(_change: Change) -> None:
        raise ChangeRejected("still using v1")

    async with dial(fake) as broker, broker.lease("github/ci", on_change=apply):
        await fake.revoke("github/ci")
        ack = await fake.wait_for_ack("github/ci", AckStatus.FAILED)
    assert (ack.version, ack.detail) == (1, "ChangeRejected")


async def test_an_older_version_can_come_back(fake: FakeBroker, dial: Dial) -> None:
    """A rotation to a lower version, as a rollback makes it, is applied like any other."""
    fake.put("github/ci", "v2")
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        name = fake.leases[0].lease
        await fake.send_text(
            f'{{"type":"rotated","lease":"{name}","token":"github/ci","version":1,"value":"v1","encoding":"utf8",'
            '"content_type":"text/plain"}'
        )
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED, version=1)
        assert (lease.value, lease.version) == ("v1", 1)


async def test_a_repeated_push_changes_nothing_and_is_acknowledged(fake: FakeBroker, dial: Dial) -> None:
    """The same version twice is one change for the app."""
    seen: list[int] = []
    async with dial(fake) as broker, broker.lease("github/ci", on_change=lambda change: seen.append(change.version)):
        name = fake.leases[0].lease
        push = (
            f'{{"type":"rotated","lease":"{name}","token":"github/ci","version":2,"value":"v2","encoding":"utf8",'
            '"content_type":"text/plain"}'
        )
        await fake.send_text(push)
        await fake.send_text(push)
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED, version=2)
        await fake.send_text('{"type":"revoked","leases":["other"],"reason":""}')
        await fake.wait_for_ack("", AckStatus.WIPED)
    assert seen == [2]


async def test_pushes_for_other_leases_are_harmless(fake: FakeBroker, dial: Dial) -> None:
    """Pushes that cross a release are ignored, save that a revoked lease is acknowledged: nothing is left of it."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.send_text(
            '{"type":"rotated","lease":"other","token":"github/ci","version":9,"value":"x","encoding":"utf8",'
            '"content_type":"text/plain"}'
        )
        await fake.send_text('{"type":"renewed","leases":[{"lease":"other","ttl_s":1}]}')
        await fake.send_text('{"type":"revoked","leases":["other"],"reason":""}')
        await fake.wait_for_ack("", AckStatus.WIPED)
        assert lease.value == "v1"


async def test_unknown_frames_are_ignored(fake: FakeBroker, dial: Dial) -> None:
    """A push of a later protocol version neither ends the session nor changes a lease."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.send_text('{"type":"weather","temperature":21}')
        await fake.rotate("github/ci", "v2")
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED)
        assert lease.value == "v2"
    assert fake.attempts == 1


async def test_a_value_outside_the_protocol_costs_the_connection_only(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """A pushed value that its encoding cannot hold is never served; the client reconnects and keeps what it had."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        name = fake.leases[0].lease
        await fake.send_text(
            f'{{"type":"rotated","lease":"{name}","token":"github/ci","version":2,"value":"=","encoding":"b64",'
            '"content_type":"text/plain"}'
        )
        await eventually(lambda: "Resume" in fake.requests)
        assert (lease.value, lease.version) == ("v1", 1)


async def test_a_frame_outside_the_protocol_costs_the_connection_only(
    fake: FakeBroker, dial: Dial, clock: HandClock
) -> None:
    """After nonsense the client reconnects and resumes; the value stays readable throughout."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.send_text("nonsense")
        async with asyncio.timeout(5):
            while "Resume" not in fake.requests:
                assert lease.value == "v1"
                await asyncio.sleep(0)
        assert fake.attempts == 2
