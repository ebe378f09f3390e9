"""Frames that are wrong: what each gets, when the session ends for them, and that nobody else notices."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

WORST = [
    b"",
    b"null",
    b"[]",
    b"1",
    b'"lease"',
    b"{",
    b"{}",
    b'{"type":7}',
    b'{"type":"levitate"}',
    b'{"type":"hello","worker":"ci-1","auth":"ed25519","nonce":"' + b"A" * 43 + b'"}',
    b'{"type":"prove"}',
    b'{"type":"lease"}',
    b'{"type":"lease","id":-1,"token":"github/ci"}',
    b'{"type":"lease","id":9007199254740992,"token":"github/ci"}',
    b'{"type":"lease","id":1' + b"0" * 5000 + b',"token":"github/ci"}',
    b'{"type":"lease","id":"1","token":"github/ci"}',
    b'{"type":"lease","id":1.5,"token":"github/ci"}',
    b'{"type":"lease","id":1,"token":"\xff\xfe"}',
    b'{"type":"lease","id":1,"token":"\xed\xa0\x80"}',
    b'{"type":"ack","lease":"\\ud800","status":"wiped"}',
    b'{"type":"ack","lease":"","status":"wiped"}',
    b'{"type":"ack","lease":"x","status":"eaten"}',
    b'{"type":"ack","lease":"x","status":"failed","version":1,"detail":"' + b"x" * 257 + b'"}',
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"type":"lease","id":1,"token":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b"\x00" * 1000,
    b'{"type":"lease","id":1,"token":"github/ci"}{"type":"lease","id":2,"token":"github/ci"}',
]


async def test_a_frame_that_cannot_be_read_gets_bad_request(
    house: Any, welcomed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One such frame is answered, the session goes on, and nothing is logged as our own failure."""
    for frame in WORST:
        async with welcomed(house) as worker:
            await worker.raw(frame)
            refused = await worker.receive()
            assert (refused["type"], refused["code"]) == ("error", "bad_request"), frame[:80]
            assert 0 < len(refused["message"]) <= 256
            assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"
    assert [record for record in caplog.records if record.exc_info] == []


OUT_OF_BOUNDS: list[dict[str, Any]] = [
    {"token": ""},
    {"token": "GitHub/ci"},
    {"token": "github//ci"},
    {"token": "/github"},
    {"token": "github/ci\n"},
    {"token": "a" * 64},
    {"token": "/".join("abcdefghi")},
    {"token": "github/ci", "ttl_s": 0},
    {"token": "github/ci", "ttl_s": -1},
    {"token": "github/ci", "ttl_s": "60"},
    {"token": "github/ci", "ttl_s": 31 * 24 * 3600 + 1},
    {"token": "github/ci", "ttl_s": 10**400},
    {"token": ["github/ci"]},
    {},
]


async def test_a_field_out_of_bounds_is_that_request_s_failure(house: Any, welcomed: Any) -> None:
    """The answer carries the request's id, and however many such there are, the session lives on."""
    async with welcomed(house) as worker:
        for fields in OUT_OF_BOUNDS:
            refused = await worker.ask("lease", **fields)
            assert (refused["type"], refused["code"]) == ("error", "bad_request"), fields
        assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"


async def test_a_ttl_that_is_no_number_is_refused(house: Any, welcomed: Any) -> None:
    """What JSON does not know, or no float can hold, is not taken for a time."""
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        async with welcomed(house) as worker:
            await worker.text(f'{{"type":"lease","id":1,"token":"github/ci","ttl_s":{number}}}')
            assert (await worker.receive())["code"] == "bad_request"


async def test_lists_of_leases_are_bounded(house: Any, welcomed: Any) -> None:
    """No lease at all, and more than a thousand, are refused; a thousand are answered one by one."""
    ids = [f"x{n}" for n in range(1001)]
    items = {"renew": ids, "release": ids, "resume": [{"lease": lease, "version": 1} for lease in ids]}
    async with welcomed(house) as worker:
        for kind, named in items.items():
            for refused in ([], named):
                assert (await worker.ask(kind, leases=refused))["code"] == "bad_request"
            answered = await worker.ask(kind, leases=named[:1000])
            assert answered["gone"] == [{"lease": f"x{n}", "code": "gone"} for n in range(1000)]


async def test_the_first_malformed_frame_before_welcome_ends_it(house: Any, wire: Any) -> None:
    """A stranger gets no second try: `bad_request`, close 4400."""
    for frame in (b"nonsense", b'{"type":"lease","id":1,"token":"a"}', b"\xff", b"[" * 100_000):
        async with wire.dial(house.url) as worker:
            await worker.raw(frame)
            assert (await worker.receive())["code"] == "bad_request"
            assert await worker.close_code() == 4400


async def test_a_binary_frame_before_welcome_ends_it(house: Any, wire: Any) -> None:
    """Frames are text, from the first on."""
    async with wire.dial(house.url) as worker:
        await worker.socket.send_bytes(b'{"type":"hello"}')
        assert (await worker.receive())["code"] == "bad_request"
        assert await worker.close_code() == 4400


async def test_the_third_malformed_frame_ends_the_session(house: Any, welcomed: Any) -> None:
    """Two are answered and forgiven, also when good ones lie between; the third closes with 4400."""
    async with welcomed(house) as worker:
        for _ in range(2):
            await worker.text("nonsense")
            assert (await worker.receive())["code"] == "bad_request"
            assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"
        await worker.socket.send_bytes(b"{}")
        assert (await worker.receive())["code"] == "bad_request"
        assert await worker.close_code() == 4400


async def test_every_known_type_counts_when_it_is_malformed(house: Any, welcomed: Any) -> None:
    """A report is no unknown type: the third that cannot be read closes like any other frame."""
    for kind in ("ack", "report"):
        async with welcomed(house) as worker:
            for _ in range(3):
                await worker.text(f'{{"type":"{kind}","lease":7}}')
                assert (await worker.receive())["code"] == "bad_request"
            assert await worker.close_code() == 4400, kind


async def test_nothing_is_taken_after_the_frame_that_ended_the_session(house: Any, welcomed: Any) -> None:
    """What was sent behind the third malformed frame is neither carried out nor answered."""
    async with welcomed(house) as worker:
        for _ in range(20):
            await worker.text("nonsense")
        await worker.send(type="lease", id=1, token="github/ci")
        assert await worker.close_code() == 4400
        assert len(worker.pushes) == 3
        assert worker.answers == {}
    assert await house.leases() == []


async def test_unknown_types_never_end_a_session(house: Any, welcomed: Any) -> None:
    """A later client may say more than this broker understands, as often as it likes."""
    async with welcomed(house) as worker:
        for _ in range(5):
            await worker.text('{"type":"dance","lease":"x","event":"ok"}')
            assert (await worker.receive())["code"] == "bad_request"
        assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"


async def test_unknown_fields_are_ignored(house: Any, welcomed: Any) -> None:
    """A newer client may say more than this broker understands."""
    async with welcomed(house) as worker:
        granted = await worker.ask("lease", token="github/ci", colour="blue", nested={"a": [1, {}]})
        assert granted["type"] == "granted"


async def test_an_unknown_type_with_an_id_is_answered_with_it(house: Any, welcomed: Any) -> None:
    """The client learns which of its requests this broker does not know."""
    async with welcomed(house) as worker:
        for _ in range(5):
            assert (await worker.ask("levitate"))["code"] == "bad_request"


async def test_a_frame_of_exactly_the_bound_is_taken(house: Any, welcomed: Any) -> None:
    """128 KiB is allowed."""
    async with welcomed(house) as worker:
        frame = json.dumps({"type": "lease", "id": 1, "token": "github/ci", "pad": ""})
        padded = frame[:-2] + "x" * (128 * 1024 - len(frame)) + '"}'
        assert len(padded) == 128 * 1024
        await worker.text(padded)
        assert (await worker.answer(1))["type"] == "granted"


@pytest.mark.parametrize("extra", [1, 10_000_000])
async def test_a_longer_frame_closes_with_1009(house: Any, welcomed: Any, extra: int) -> None:
    """One byte more is too much, and it is not read to its end."""
    async with welcomed(house) as worker, welcomed(house) as other:
        with contextlib.suppress(ConnectionError):
            await worker.raw(b" " * (128 * 1024 + extra))
        # 1006: so much that the socket was gone before all of it was written.
        assert await worker.close_code() in ({1009} if extra == 1 else {1009, 1006})
        assert (await other.ask("lease", token="github/ci"))["type"] == "granted"


async def test_a_longer_frame_before_welcome_closes_with_1009(house: Any, wire: Any) -> None:
    """Strangers cannot make the broker gather more than a frame either."""
    async with wire.dial(house.url) as worker:
        await worker.raw(b" " * (128 * 1024 + 1))
        assert await worker.close_code() == 1009


async def test_an_id_in_flight_cannot_be_used_again(house: Any, welcomed: Any) -> None:
    """The second request of that id is refused without it; the first is answered exactly once."""
    async with welcomed(house) as worker:
        for _ in range(2):
            await worker.send(type="lease", id=5, token="github/ci")
        refused = await worker.push()
        assert refused["code"] == "bad_request"
        assert (await worker.answer(5))["type"] == "granted"
        assert await worker.silent()
        await worker.send(type="lease", id=5, token="github/ci")
        assert (await worker.answer(5))["type"] == "granted"


async def test_the_257th_request_in_flight_is_rate_limited(house: Any, welcomed: Any) -> None:
    """256 wait for their answers, one more is told when to come back, and none is lost."""
    async with welcomed(house) as worker:
        for number in range(257):
            await worker.send(type="lease", id=number, token="github/ci")
        answers = [await worker.answer(number) for number in range(257)]
        limited = [answer["id"] for answer in answers if answer["type"] == "error"]
        assert limited == [256]
        assert answers[256]["code"] == "rate_limited"
        assert answers[256]["retry_after_s"] > 0
        assert (await worker.ask("lease", token="github/ci"))["type"] == "granted"
