"""Leasing over a real socket: values, versions, sharing, release, refusals and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tokenbroker_client import (
    BadRequest,
    Broker,
    BrokerError,
    Closed,
    Denied,
    Internal,
    LeaseReleased,
    NotFound,
    NotText,
    RateLimited,
    TimedOut,
    Unavailable,
)
from tokenbroker_client.testing import FakeBroker
from tokenbroker_client.wire import AckStatus, ErrorCode

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., AbstractAsyncContextManager[Broker]]


async def test_a_lease_has_the_value_that_was_put(fake: FakeBroker, dial: Dial) -> None:
    """A worker reads what the operator stored, with its version and content type."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        assert lease.value == "v1"
        assert lease.value_bytes == b"v1"
        assert (lease.token, lease.version, lease.content_type) == ("github/ci", 1, "text/plain")
        assert lease.remaining_s == 300.0


@pytest.mark.parametrize("value", [b"\x00\xff\xfe", b"\x00" * 65536, b"\r\n trailing \n", "ü€😀".encode()])
async def test_values_arrive_byte_for_byte(fake: FakeBroker, dial: Dial, value: bytes) -> None:
    """Any bytes up to 64 KiB arrive unchanged."""
    fake.put("any/bytes", value)
    async with dial(fake) as broker, broker.lease("any/bytes") as lease:
        assert lease.value_bytes == value


async def test_a_value_that_is_no_text_says_so(fake: FakeBroker, dial: Dial) -> None:
    """Reading bytes as text raises a typed error that does not show them."""
    fake.put("any/bytes", b"secret\xff")
    async with dial(fake) as broker, broker.lease("any/bytes") as lease:
        with pytest.raises(NotText) as caught:
            _ = lease.value
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_leaving_the_block_releases_and_wipes(fake: FakeBroker, dial: Dial) -> None:
    """After the block the broker has the lease back and the value cannot be read."""
    async with dial(fake) as broker:
        async with broker.lease("github/ci") as lease:
            assert len(fake.live_leases) == 1
            holding = lease._holding
        assert [entry.code for entry in fake.leases] == ["released"]
        with pytest.raises(LeaseReleased):
            _ = lease.value
        assert holding._value is not None
        assert holding._value.reveal() == b""


async def test_the_ttl_asked_for_reaches_the_broker(fake: FakeBroker, dial: Dial) -> None:
    """An app bounds how long a value may outlive a broken connection."""
    async with dial(fake) as broker, broker.lease("github/ci", ttl_s=5) as lease:
        assert lease.remaining_s == 5.0


async def test_blocks_on_one_token_share_one_lease(fake: FakeBroker, dial: Dial) -> None:
    """A session has one lease per token, so the first block to be left must not end the other's."""
    async with dial(fake) as broker, broker.lease("github/ci") as outer:
        async with broker.lease("github/ci") as inner:
            assert inner.value == outer.value
            assert len(fake.leases) == 1
        assert outer.value == "v1"
        assert len(fake.live_leases) == 1
        with pytest.raises(LeaseReleased):
            _ = inner.value


async def test_a_token_can_be_leased_again_after_its_release(fake: FakeBroker, dial: Dial) -> None:
    """Each block after the first gets a lease that lives."""
    async with dial(fake) as broker:
        for _ in range(3):
            async with broker.lease("github/ci") as lease:
                assert lease.value == "v1"
                assert len(fake.live_leases) == 1
    assert len(fake.leases) == 3


async def test_blocks_opened_and_left_at_once_agree(fake: FakeBroker, dial: Dial) -> None:
    """Releases and requests of many tasks for one token never end a lease that somebody still reads."""
    async with dial(fake) as broker:

        async def use(turn: int) -> None:
            for _ in range(5):
                async with broker.lease("github/ci") as lease:
                    for _ in range(turn):
                        await asyncio.sleep(0)
                    assert lease.value == "v1"
                    assert len(fake.live_leases) == 1

        async with asyncio.TaskGroup() as tasks:
            for turn in range(8):
                tasks.create_task(use(turn))
    assert fake.live_leases == []


async def test_leaving_connect_releases_everything(fake: FakeBroker, dial: Dial) -> None:
    """A lease whose block is still open when `connect` is left is given back all the same."""
    async with dial(fake) as broker:
        block = broker.lease("github/ci")
        lease = await block.__aenter__()
    assert [entry.code for entry in fake.leases] == ["released"]
    with pytest.raises(LeaseReleased):
        _ = lease.value
    with pytest.raises(Closed):
        await broker.lease("github/ci").__aenter__()
    await block.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (ErrorCode.BAD_REQUEST, BadRequest),
        (ErrorCode.DENIED, Denied),
        (ErrorCode.NOT_FOUND, NotFound),
        (ErrorCode.RATE_LIMITED, RateLimited),
        (ErrorCode.UNAVAILABLE, Unavailable),
        (ErrorCode.INTERNAL, Internal),
    ],
)
async def test_each_refusal_has_its_type(
    fake: FakeBroker, dial: Dial, code: ErrorCode, error: type[BrokerError]
) -> None:
    """An app tells refusals apart by type, learns when to ask again, and asks again itself."""
    fake.refuse_next(code, retry_after_s=7.5)
    async with dial(fake) as broker:
        with pytest.raises(error) as caught:
            async with broker.lease("github/ci"):
                pass
        assert caught.value.retry_after_s == 7.5
        assert fake.requests == ["LeaseRequest"]
        async with broker.lease("github/ci") as lease:
            assert lease.value == "v1"


async def test_a_token_that_does_not_exist_is_denied(fake: FakeBroker, dial: Dial) -> None:
    """Names cannot be probed."""
    async with dial(fake) as broker:
        with pytest.raises(Denied):
            await broker.lease("no/such").__aenter__()


@pytest.mark.parametrize(
    ("token", "ttl_s"), [("UPPER", None), ("", None), ("a", 0), ("a", -1), ("a", 32 * 86400), ("a", float("nan"))]
)
async def test_what_is_out_of_bounds_is_never_sent(
    fake: FakeBroker, dial: Dial, token: str, ttl_s: float | None
) -> None:
    """A bad name or span is refused before it costs one of a session's three malformed frames."""
    async with dial(fake) as broker:
        with pytest.raises(BadRequest):
            await broker.lease(token, ttl_s=ttl_s).__aenter__()
    assert fake.requests == []


async def test_an_answer_that_does_not_come_times_out(fake: FakeBroker, dial: Dial) -> None:
    """A request has a deadline, and what is granted after it is given back."""
    async with dial(fake, request_s=0.1) as broker:
        fake.hold_answers()
        with pytest.raises(TimedOut):
            await broker.lease("github/ci").__aenter__()
        fake.release_answers()
        async with broker.lease("github/ci") as lease:
            assert lease.value == "v1"
            assert len(fake.live_leases) == 1
    assert fake.live_leases == []


async def test_a_cancelled_request_leaves_no_lease_behind(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """A grant that arrives after its caller was cancelled is released."""
    async with dial(fake) as broker:
        fake.hold_answers()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(broker.lease("github/ci").__aenter__())
            await eventually(lambda: fake.requests == ["LeaseRequest"])
            task.cancel()
        fake.release_answers()
        await eventually(lambda: fake.requests == ["LeaseRequest", "Release"])
    assert [entry.code for entry in fake.leases] == ["released"]


async def test_a_cancelled_request_harms_no_other(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """When one of two callers for a token is cancelled, the other's lease lives."""
    async with dial(fake) as broker:
        fake.hold_answers()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(broker.lease("github/ci").__aenter__())
            await eventually(lambda: fake.requests == ["LeaseRequest"])
            task.cancel()
            await asyncio.sleep(0)
            block = broker.lease("github/ci")
            other = tasks.create_task(block.__aenter__())
            fake.release_answers()
        assert other.result().value == "v1"
        assert len(fake.live_leases) == 1


async def test_a_lease_passes_from_hand_to_hand(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """When all callers for a token leave while an answer is on its way, and another comes, that one gets the lease."""
    async with dial(fake) as broker:
        async with asyncio.TaskGroup() as tasks:
            async with broker.lease("github/ci"):
                fake.hold_answers()
                second = tasks.create_task(broker.lease("github/ci").__aenter__())
                await eventually(lambda: len(fake.requests) == 2)
            second.cancel()
            await asyncio.sleep(0)
            block = broker.lease("github/ci")
            third = tasks.create_task(block.__aenter__())
            await asyncio.sleep(0)
            fake.release_answers()
        assert third.result().value == "v1"
        assert len(fake.leases) == 1
        await block.__aexit__(None, None, None)


async def test_a_release_is_confirmed_before_the_token_is_asked_for_again(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """A broker may answer a batch in any order, so a release and a request for one token never travel together."""
    async with dial(fake) as broker:
        connection = broker._link.connected
        assert connection is not None
        first = broker.lease("github/ci")
        await first.__aenter__()
        fake.hold_answers()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.__aexit__(None, None, None))
            await eventually(lambda: fake.requests == ["LeaseRequest", "Release"])
            block = broker.lease("github/ci")
            second = tasks.create_task(block.__aenter__())
            for _ in range(20):
                await asyncio.sleep(0)
                assert len(connection._unanswered) == 1
            fake.release_answers()
        assert second.result().value == "v1"
        assert len(fake.live_leases) == 1
        await block.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "answer",
    [
        '{"type":"released","id":1,"leases":[],"gone":[]}',
        (
            '{"type":"granted","id":1,"lease":"l","token":"github/ci","version":1,"value":"=","encoding":"b64",'
            '"content_type":"text/plain","ttl_s":300,"max_ttl_s":3600,"expires_at":0}'
        ),
    ],
    ids=["wrong kind", "wrong value"],
)
async def test_an_answer_that_cannot_be_used_is_asked_for_elsewhere(
    fake: FakeBroker, dial: Dial, eventually: Eventually, answer: str
) -> None:
    """A broker that breaks the protocol loses the connection, and the caller gets its lease on the next one."""
    async with dial(fake) as broker:
        fake.hold_answers()
        block = broker.lease("github/ci")
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(block.__aenter__())
            await eventually(lambda: fake.requests == ["LeaseRequest"])
            await fake.send_text(answer)
            await eventually(lambda: fake.attempts == 2)
            fake.release_answers()
        assert asked.result().value == "v1"
        await block.__aexit__(None, None, None)


async def test_answers_to_nobody_are_ignored(fake: FakeBroker, dial: Dial) -> None:
    """An answer or an error under a number that is not in flight changes nothing."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.send_text('{"type":"released","id":77,"leases":[],"gone":[]}')
        await fake.send_text('{"type":"error","id":78,"code":"internal"}')
        await fake.send_text('{"type":"error","code":"bad_request","message":"an ack was malformed"}')
        await fake.rotate("github/ci", "v2")
        await fake.wait_for_ack("github/ci", AckStatus.APPLIED)
        assert lease.value == "v2"
    assert fake.attempts == 1


async def test_more_requests_than_fit_wait_their_turn(fake: FakeBroker, dial: Dial, eventually: Eventually) -> None:
    """Three hundred tokens are leased at once with never more than 256 requests unanswered."""
    for number in range(300):
        fake.put(f"many/t{number}", str(number))
    async with dial(fake, request_s=20) as broker:
        fake.hold_answers()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            blocks = [broker.lease(f"many/t{number}") for number in range(300)]
            asked = [tasks.create_task(block.__aenter__()) for block in blocks]
            connection = broker._link.connected
            assert connection is not None
            await eventually(lambda: len(connection._unanswered) == 256)
            for _ in range(50):
                await asyncio.sleep(0)
                assert len(connection._unanswered) == 256
            fake.release_answers()
        assert [task.result().value for task in asked] == [str(number) for number in range(300)]


async def test_reprs_show_no_value(fake: FakeBroker, dial: Dial) -> None:
    """Neither a lease nor anything it is made of shows the value when printed."""
    fake.put("github/ci", "a-canary-value")
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        shown = f"{lease!r} {lease._holding!r} {vars(lease._holding)!r} {vars(broker)!r}"
        assert "canary" not in shown


async def test_what_the_block_raises_passes_through(fake: FakeBroker, dial: Dial) -> None:
    """An app's own exception leaves `connect` as itself, not in a group."""
    with pytest.raises(KeyError, match="mine"):
        async with dial(fake) as broker, broker.lease("github/ci"):
            raise KeyError("mine")
    assert fake.live_leases == []


async def test_cancelling_the_app_gives_leases_back(fake: FakeBroker, dial: Dial) -> None:
    """An app that is cancelled in its block ends as cancelled, and holds nothing any more."""
    inside = asyncio.Event()

    async def app() -> None:
        async with dial(fake) as broker, broker.lease("github/ci"):
            inside.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(app())
        await inside.wait()
        task.cancel()
    assert task.cancelled()
    assert [entry.code for entry in fake.leases] == ["released"]


async def test_both_live_versions_are_leased_beside_each_other(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """A rotation moves each on by one, under two leases; the blocks of one stage share theirs."""
    fake.put("github/ci", "v2")
    async with dial(fake) as broker:
        async with broker.lease("github/ci") as now, broker.lease("github/ci", stage="previous") as before:
            assert (now.value, now.stage, before.value, before.stage) == ("v2", "current", "v1", "previous")
            async with broker.lease("github/ci", stage="previous") as again:
                assert (again.value, len(fake.leases)) == ("v1", 2)
            await fake.rotate("github/ci", "v3")
            await eventually(lambda: (now.value, before.value) == ("v3", "v2"))
        assert [entry.code for entry in fake.leases] == ["released", "released"]


async def test_both_live_versions_survive_a_lost_connection(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """Each lease is resumed with the version of its own stage."""
    fake.put("github/ci", "v2")
    async with (
        dial(fake) as broker,
        broker.lease("github/ci") as now,
        broker.lease("github/ci", stage="previous") as before,
    ):
        await fake.drop_connections()
        fake.put("github/ci", "v3")
        await eventually(lambda: (now.value, before.value) == ("v3", "v2"))
        assert len(fake.leases) == 2


async def test_a_token_without_a_previous_version_is_not_found_in_that_stage(fake: FakeBroker, dial: Dial) -> None:
    """There is nothing to have; the current version is leased as before."""
    async with dial(fake) as broker:
        with pytest.raises(NotFound):
            async with broker.lease("github/ci", stage="previous"):
                pass
        async with broker.lease("github/ci") as lease:
            assert lease.value == "v1"


async def test_a_stage_that_cannot_be_leased_is_not_asked_for(fake: FakeBroker, dial: Dial) -> None:
    """Pending and retired versions are refused before anything is sent."""
    async with dial(fake) as broker:
        for stage in ("pending", "retired", ""):
            with pytest.raises(BadRequest, match="current or previous"):
                async with broker.lease("github/ci", stage=stage):  # type: ignore[arg-type]  # what the type forbids
                    pass
        assert fake.requests == []
