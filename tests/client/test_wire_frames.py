"""Frames look exactly as the wire protocol shows them, and hold what its bounds allow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbroker_client import wire

N32 = "A" * 43
S64 = "A" * 86

CLIENT_EXAMPLES: list[tuple[wire.ClientFrame, dict[str, Any]]] = [
    (
        wire.Hello(worker="ci-1", auth=wire.AuthMethod.ED25519, nonce=N32, public_key=N32, client="name/version"),
        {
            "type": "hello",
            "worker": "ci-1",
            "auth": "ed25519",
            "nonce": N32,
            "public_key": N32,
            "client": "name/version",
        },
    ),
    (wire.Prove(signature=S64), {"type": "prove", "signature": S64}),
    (
        wire.LeaseRequest(id=7, token="github/ci-bot", ttl_s=300),
        {"type": "lease", "id": 7, "token": "github/ci-bot", "ttl_s": 300},
    ),
    (
        wire.LeaseRequest(id=7, token="github/ci-bot", stage=wire.Stage.PREVIOUS),
        {"type": "lease", "id": 7, "token": "github/ci-bot", "stage": "previous"},
    ),
    (wire.LeaseRequest(id=7, token="github/ci-bot"), {"type": "lease", "id": 7, "token": "github/ci-bot"}),
    (wire.Renew(id=8, leases=("l1",)), {"type": "renew", "id": 8, "leases": ["l1"]}),
    (wire.Release(id=9, leases=("l1",)), {"type": "release", "id": 9, "leases": ["l1"]}),
    (
        wire.Resume(id=1, leases=(wire.HeldLease(lease="l1", version=3),)),
        {"type": "resume", "id": 1, "leases": [{"lease": "l1", "version": 3}]},
    ),
    (
        wire.Ack(lease="l1", version=4, status=wire.AckStatus.APPLIED),
        {"type": "ack", "lease": "l1", "version": 4, "status": "applied"},
    ),
    (
        wire.Ack(lease="l1", version=4, status=wire.AckStatus.FAILED, detail="why"),
        {"type": "ack", "lease": "l1", "version": 4, "status": "failed", "detail": "why"},
    ),
    (
        wire.Ack(lease="l1", status=wire.AckStatus.WIPED),
        {"type": "ack", "lease": "l1", "status": "wiped"},
    ),
    (
        wire.Report(lease="l1", event=wire.ReportEvent.REJECTED, version=4),
        {"type": "report", "lease": "l1", "event": "rejected", "version": 4},
    ),
    (
        wire.Report(lease="l1", event=wire.ReportEvent.RATE_LIMITED, retry_after_s=30.0),
        {"type": "report", "lease": "l1", "event": "rate_limited", "retry_after_s": 30.0},
    ),
    (wire.Report(lease="l1", event=wire.ReportEvent.OK), {"type": "report", "lease": "l1", "event": "ok"}),
]

ROTATED = wire.Rotated(
    lease="l1",
    token="a/b",
    version=4,
    value="v2",
    encoding=wire.Encoding.UTF8,
    content_type="text/plain",
    previous_valid_s=120,
)
ROTATED_JSON = {
    "type": "rotated",
    "lease": "l1",
    "token": "a/b",
    "version": 4,
    "value": "v2",
    "encoding": "utf8",
    "content_type": "text/plain",
    "previous_valid_s": 120,
}

SERVER_EXAMPLES: list[tuple[wire.ServerFrame, dict[str, Any]]] = [
    (wire.Challenge(cluster="c1", nonce=N32), {"type": "challenge", "cluster": "c1", "nonce": N32}),
    (
        wire.Welcome(session="s1", worker="ci-1", cluster="c1", instance="i1", heartbeat_s=20),
        {
            "type": "welcome",
            "session": "s1",
            "worker": "ci-1",
            "cluster": "c1",
            "instance": "i1",
            "heartbeat_s": 20,
        },
    ),
    (
        wire.Granted(
            id=7,
            lease="l1",
            token="a/b",
            version=3,
            value="v1",
            encoding=wire.Encoding.UTF8,
            content_type="text/plain",
            ttl_s=300,
            max_ttl_s=3600,
            expires_at=1795312345.1,
        ),
        {
            "type": "granted",
            "id": 7,
            "lease": "l1",
            "token": "a/b",
            "version": 3,
            "value": "v1",
            "encoding": "utf8",
            "content_type": "text/plain",
            "ttl_s": 300,
            "max_ttl_s": 3600,
            "expires_at": 1795312345.1,
        },
    ),
    (
        wire.Renewed(
            id=8,
            leases=(wire.LiveLease(lease="l1", ttl_s=300),),
            gone=(wire.GoneLease(lease="l2", code=wire.GoneCode.REVOKED),),
        ),
        {
            "type": "renewed",
            "id": 8,
            "leases": [{"lease": "l1", "ttl_s": 300}],
            "gone": [{"lease": "l2", "code": "revoked"}],
        },
    ),
    (wire.Renewed(id=8, leases=(), gone=()), {"type": "renewed", "id": 8, "leases": [], "gone": []}),
    (
        wire.Renewed(leases=(wire.LiveLease(lease="l1", ttl_s=300),)),
        {"type": "renewed", "leases": [{"lease": "l1", "ttl_s": 300}]},
    ),
    (
        wire.Released(id=9, leases=("l1",), gone=()),
        {"type": "released", "id": 9, "leases": ["l1"], "gone": []},
    ),
    (
        wire.Resumed(id=1, live=(wire.LiveLease(lease="l1", ttl_s=212),), rotated=(ROTATED,), gone=()),
        {
            "type": "resumed",
            "id": 1,
            "live": [{"lease": "l1", "ttl_s": 212}],
            "rotated": [ROTATED_JSON],
            "gone": [],
        },
    ),
    (ROTATED, ROTATED_JSON),
    (wire.Revoked(leases=("l1",), reason="theft"), {"type": "revoked", "leases": ["l1"], "reason": "theft"}),
    (
        wire.Goaway(reason="draining", reconnect_in_s=1.7),
        {"type": "goaway", "reason": "draining", "reconnect_in_s": 1.7},
    ),
    (
        wire.Error(id=7, code=wire.ErrorCode.DENIED, message="no", retry_after_s=0.4),
        {"type": "error", "id": 7, "code": "denied", "message": "no", "retry_after_s": 0.4},
    ),
    (wire.Error(code=wire.ErrorCode.UNAUTHENTICATED), {"type": "error", "code": "unauthenticated"}),
]

# A busy machine makes slow inputs, which says nothing about the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(("frame", "document"), CLIENT_EXAMPLES)
def test_client_frames_look_as_specified(frame: wire.ClientFrame, document: dict[str, Any]) -> None:
    """Each client frame has the fields of the protocol's example and no other, and reads back as itself."""
    assert json.loads(wire.encode_frame(frame)) == document
    assert wire.decode_client_frame(json.dumps(document)) == frame


@pytest.mark.parametrize(("frame", "document"), SERVER_EXAMPLES)
def test_server_frames_look_as_specified(frame: wire.ServerFrame, document: dict[str, Any]) -> None:
    """Each broker frame has the fields of the protocol's example and no other, and reads back as itself."""
    assert json.loads(wire.encode_frame(frame)) == document
    assert wire.decode_server_frame(json.dumps(document)) == frame


@pytest.mark.parametrize("document", [document for _, document in CLIENT_EXAMPLES])
def test_unknown_fields_are_ignored(document: dict[str, Any]) -> None:
    """A field of a later protocol version changes nothing."""
    assert wire.decode_client_frame(json.dumps({**document, "later": [1]})) == wire.decode_client_frame(
        json.dumps(document)
    )


def test_a_rotated_item_of_a_resumed_frame_needs_no_type() -> None:
    """A broker may leave `type` out of the items of `rotated`, for the list says what they are."""
    item = {key: value for key, value in ROTATED_JSON.items() if key != "type"}
    frame = wire.decode_server_frame(
        json.dumps({"type": "resumed", "id": 1, "live": [], "rotated": [item], "gone": []})
    )
    assert isinstance(frame, wire.Resumed)
    assert frame.rotated == (ROTATED,)


def test_a_client_ignores_an_unknown_type() -> None:
    """A frame type of a later broker reads as nothing, whatever its other fields hold."""
    assert wire.decode_server_frame('{"type":"weather","id":"not a number"}') is None


def test_a_client_survives_unknown_codes() -> None:
    """An error code and a reason of a later broker are kept as they came."""
    frame = wire.decode_server_frame('{"type":"error","code":"on_holiday"}')
    assert frame == wire.Error(code="on_holiday")


BAD_CLIENT_FRAMES = [
    "",
    "nonsense",
    "[]",
    "7",
    "null",
    "{}",
    '{"type":7}',
    '{"type":"weather"}',
    '{"type":"lease","id":1}',
    '{"type":"lease","token":"a"}',
    '{"type":"lease","id":-1,"token":"a"}',
    '{"type":"lease","id":9007199254740992,"token":"a"}',
    '{"type":"lease","id":1.5,"token":"a"}',
    '{"type":"lease","id":"1","token":"a"}',
    '{"type":"lease","id":1,"token":"a","ttl_s":0}',
    '{"type":"lease","id":1,"token":"a","ttl_s":-1}',
    '{"type":"lease","id":1,"token":"a","ttl_s":NaN}',
    '{"type":"lease","id":1,"token":"a","ttl_s":1e999}',
    '{"type":"lease","id":1,"token":"a","ttl_s":2678401}',
    '{"type":"lease","id":1,"token":"a","ttl_s":true}',
    '{"type":"lease","id":1,"token":"\ud800"}',
    '{"type":"lease","id":1,"token":"a"} {}',
    '{"type":"release","id":1,"leases":[]}',
    '{"type":"release","id":1,"leases":"l1"}',
    '{"type":"resume","id":1,"leases":[{"lease":"l1","version":0}]}',
    '{"type":"resume","id":1,"leases":[{"lease":"l1"}]}',
    '{"type":"ack","lease":"l1","status":"perhaps"}',
    '{"type":"ack","lease":"l1","status":"failed","detail":"' + "x" * 257 + '"}',
    '{"type":"hello","worker":"a/b","auth":"ed25519","nonce":"' + N32 + '"}',
    '{"type":"hello","worker":"a","auth":"password","nonce":"' + N32 + '"}',
    '{"type":"hello","worker":"a","auth":"ed25519","nonce":"short"}',
    json.dumps({"type": "release", "id": 1, "leases": ["l"] * 1001}),
    json.dumps({"type": "release", "id": 1, "leases": ["l" * 257]}),
]


@pytest.mark.parametrize("text", BAD_CLIENT_FRAMES)
def test_frames_outside_the_protocol_are_refused(text: str) -> None:
    """What is not JSON, not an object, incomplete, mistyped or out of bound raises the one typed error."""
    with pytest.raises(wire.BadFrame):
        wire.decode_client_frame(text)


def test_a_refusal_names_its_request() -> None:
    """The broker can answer a bad request by its id, so the client's caller learns of it."""
    with pytest.raises(wire.BadFrame, match="a token name") as caught:
        wire.decode_client_frame('{"type":"lease","id":7,"token":"UPPER"}')
    assert caught.value.request_id == 7


def test_a_refusal_stays_short() -> None:
    """A sender cannot make the broker's answer or log as long as its own frame."""
    with pytest.raises(wire.BadFrame) as caught:
        wire.decode_client_frame('{"type":"' + "x" * 100_000 + '"}')
    assert len(str(caught.value)) <= 256


@PATIENT
@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    """Whatever arrives is a frame, nothing, or a BadFrame: no other exception escapes."""
    for decode in (wire.decode_client_frame, wire.decode_server_frame):
        try:
            decode(data)
        except wire.BadFrame:
            continue


JSON_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = st.sampled_from(
    ["id", "token", "lease", "leases", "ttl_s", "version", "status", "detail", "worker", "auth", "nonce"]
)
KINDS = st.sampled_from(["hello", "prove", "lease", "renew", "release", "resume", "ack"])


@PATIENT
@given(KINDS, st.dictionaries(FIELDS, JSON_LEAVES | st.lists(JSON_LEAVES, max_size=3)))
def test_almost_frames_never_raise_anything_else(kind: str, fields: dict[str, Any]) -> None:
    """A known type with wild fields is a frame or a BadFrame; a frame that is read can be written again."""
    try:
        frame = wire.decode_client_frame(json.dumps({**fields, "type": kind}))
    except wire.BadFrame:
        return
    assert wire.decode_client_frame(wire.encode_frame(frame)) == frame


SEGMENT = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@PATIENT
@given(st.lists(SEGMENT, min_size=1, max_size=8))
def test_every_legal_token_name_passes(segments: list[str]) -> None:
    """One to eight legal segments are a name."""
    name = "/".join(segments)
    frame = wire.decode_client_frame(json.dumps({"type": "lease", "id": 1, "token": name}))
    assert isinstance(frame, wire.LeaseRequest)
    assert frame.token == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", "A", "-a", ".a", "a b", "a\n", "a/b\n", "ä", "a" * 64, "/".join("a" * 9), "a\0"],
)
def test_illegal_token_names_are_refused(name: str) -> None:
    """Empty, long, upper-case, foreign and newline-terminated names never reach policy or storage."""
    with pytest.raises(wire.BadFrame):
        wire.decode_client_frame(json.dumps({"type": "lease", "id": 1, "token": name}))


@pytest.mark.parametrize("frame", [frame for frame, _ in SERVER_EXAMPLES])
def test_values_stay_out_of_reprs(frame: wire.ServerFrame) -> None:
    """No broker frame shows a value, alone or nested, to a log or a traceback."""
    assert "'v1'" not in repr(frame)
    assert "'v2'" not in repr(frame)


def test_a_jwt_stays_out_of_its_repr() -> None:
    """The credential of a `prove` frame shows in no log."""
    assert "secret" not in repr(wire.Prove(jwt="secret"))


def test_a_full_list_fits_a_frame() -> None:
    """The longest resume that the bounds allow is shorter than a frame."""
    held = wire.HeldLease(lease="l" * 64, version=wire.ID_MAX)
    text = wire.encode_frame(wire.Resume(id=wire.ID_MAX, leases=(held,) * wire.LEASES_PER_FRAME_MAX))
    assert len(text) <= wire.FRAME_BYTES_MAX


def test_an_overlong_frame_is_never_sent() -> None:
    """A frame that would close the connection is an error before it leaves."""
    with pytest.raises(wire.BadFrame, match="131072"):
        wire.encode_frame(wire.Prove(jwt="x" * wire.FRAME_BYTES_MAX))
