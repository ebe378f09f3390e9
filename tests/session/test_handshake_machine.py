"""The handshake as a state machine: whatever is sent, in whatever order, only a proof lets anybody in."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broker.session.handshake import Handshake, Malformed, Refused, State
from storage.records import WorkerKey, WorkerRecord

CLUSTER = "c" * 52
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BROKER_NONCE = bytes(range(32))
CLIENT_NONCE = bytes(range(32, 64))
BINDING = bytes(range(64, 96))
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def transcript(**changed: Any) -> bytes:
    """The signed bytes, spelt out as the protocol's description has them."""
    fields = {
        "purpose": b"tokenbroker/session/v1",
        "cluster": CLUSTER.encode(),
        "worker": b"ci-1",
        "public_key": public(KEY),
        "client_nonce": CLIENT_NONCE,
        "broker_nonce": BROKER_NONCE,
        "binding": BINDING,
        **changed,
    }
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields.values())


def hello(**changed: Any) -> bytes:
    fields = {
        "type": "hello",
        "worker": "ci-1",
        "auth": "ed25519",
        "nonce": b64(CLIENT_NONCE),
        "public_key": b64(public(KEY)),
        **changed,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def prove(signature: bytes) -> bytes:
    return json.dumps({"type": "prove", "signature": b64(signature)}).encode()


def worker(**changed: Any) -> WorkerRecord:
    fields = {
        "name": "ci-1",
        "groups": (),
        "auth": "ed25519",
        "keys": (WorkerKey(public_key=public(KEY), added_at=NOW),),
        "labels": {},
        "single_session": False,
        "disabled": False,
        "created_at": NOW,
        "expires_at": None,
        **changed,
    }
    return WorkerRecord(**fields)


def handshake(*bindings: bytes) -> Handshake:
    return Handshake(cluster=CLUSTER, nonce=BROKER_NONCE, bindings=bindings or (BINDING,))


def challenged(**changed: Any) -> Handshake:
    machine = handshake()
    machine.hello(hello(**changed))
    return machine


def test_a_valid_proof_is_accepted() -> None:
    """A signature over exactly the published transcript, by a registered key, proves the worker."""
    machine = handshake()
    challenge = json.loads(machine.hello(hello()))
    assert challenge == {"type": "challenge", "cluster": CLUSTER, "nonce": b64(BROKER_NONCE)}
    machine.prove(prove(KEY.sign(transcript())), worker())
    assert machine.public_key == public(KEY)


@pytest.mark.parametrize("binding", [b"", BINDING, b"p" * 32])
def test_every_allowed_binding_proves(binding: bytes) -> None:
    """A connection that may have been seen under several certificates takes a proof over any of them."""
    machine = handshake(b"", BINDING, b"p" * 32)
    machine.hello(hello())
    machine.prove(prove(KEY.sign(transcript(binding=binding))), worker())


@pytest.mark.parametrize(
    "changed",
    [
        {"purpose": b"tokenbroker/enroll/v1"},
        {"cluster": b"d" * 52},
        {"worker": b"ci-2"},
        {"public_key": public(OTHER_KEY)},
        {"client_nonce": BROKER_NONCE},
        {"broker_nonce": CLIENT_NONCE},
        {"binding": b""},
        {"binding": b"m" * 32},
        {"cluster": CLUSTER.encode() + b"c", "worker": b"i-1"},
    ],
)
def test_a_signature_over_anything_else_is_refused(changed: dict[str, bytes]) -> None:
    """Each field of the transcript counts: a signature for another purpose, cluster, worker or connection is none."""
    with pytest.raises(Refused) as refused:
        challenged().prove(prove(KEY.sign(transcript(**changed))), worker())
    assert refused.value.reason == "signature"


def test_a_replayed_proof_is_refused() -> None:
    """What proved one connection proves nothing on another, whose nonce differs."""
    replayed = prove(KEY.sign(transcript()))
    challenged().prove(replayed, worker())
    machine = Handshake(cluster=CLUSTER, nonce=b"n" * 32, bindings=(BINDING,))
    machine.hello(hello())
    with pytest.raises(Refused):
        machine.prove(replayed, worker())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "unknown_worker"),
        (worker(keys=(WorkerKey(public_key=public(OTHER_KEY), added_at=NOW),)), "unknown_key"),
        (worker(keys=()), "unknown_key"),
    ],
)
def test_a_perfect_signature_without_registration_is_refused(row: WorkerRecord | None, reason: str) -> None:
    """Holding a key is no identity: the name must be registered, with this key."""
    with pytest.raises(Refused) as refused:
        challenged().prove(prove(KEY.sign(transcript())), row)
    assert refused.value.reason == reason


def test_a_key_that_is_no_point_proves_nothing() -> None:
    """Should such a key ever be registered, it is refused like a wrong signature, and nothing else is raised."""
    key = b"\xff" * 32
    with pytest.raises(Refused) as refused:
        challenged(public_key=b64(key)).prove(prove(bytes(64)), worker(keys=(WorkerKey(public_key=key, added_at=NOW),)))
    assert refused.value.reason == "signature"


@pytest.mark.parametrize("auth", ["jwt", "mtls"])
def test_another_method_is_refused(auth: str) -> None:
    """A method that no worker is registered for ends the handshake, and nobody learns whether the worker exists."""
    with pytest.raises(Refused) as refused:
        handshake().hello(hello(auth=auth))
    assert refused.value.reason == "method"


def test_a_proof_by_jwt_is_refused() -> None:
    """A worker cannot change its method between hello and prove."""
    with pytest.raises(Refused) as refused:
        challenged().prove(b'{"type":"prove","jwt":"e30.e30.e30"}', worker())
    assert refused.value.reason == "method"


def test_a_hello_without_key_is_refused() -> None:
    """ed25519 needs the key that it proves."""
    with pytest.raises(Refused):
        handshake().hello(hello(public_key=None))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"welcome"}',
        b'{"type":"lease","id":1,"token":"a"}',
        prove(bytes(64)),
        hello(nonce=b64(bytes(31))),
        hello(nonce="A" * 42 + "B"),
        hello(worker="CI-1"),
        hello(worker="ci-1\n"),
        hello(worker="a" * 64),
        hello(client="x" * 129),
        b'{"type":"hello","worker":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 20_000,
    ],
)
def test_what_is_no_hello_is_malformed(frame: bytes) -> None:
    """The first frame is a well-formed hello, or the handshake is over."""
    machine = handshake()
    with pytest.raises(Malformed):
        machine.hello(frame)
    assert machine.state is State.OVER


class Proving(RuleBasedStateMachine):
    """Throws frames at a handshake. Only the one that nobody else could have made may end in a proof."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = handshake()
        self.honest_hello = False

    @precondition(lambda self: self.machine.state is State.EXPECT_HELLO)
    @rule(honest=st.booleans(), name=st.sampled_from(["ci-1", "ci-2"]), key=st.sampled_from([KEY, OTHER_KEY]))
    def says_hello(self, honest: bool, name: str, key: Ed25519PrivateKey) -> None:
        frame = hello() if honest else hello(worker=name, public_key=b64(public(key)))
        self.machine.hello(frame)
        self.honest_hello = (self.machine.worker, self.machine.public_key) == ("ci-1", public(KEY))

    @precondition(lambda self: self.machine.state is not State.OVER)
    @rule(frame=st.one_of(st.binary(max_size=64), st.sampled_from([b"{}", b'{"type":"ack"}', b"1", prove(b"")])))
    def sends_rubbish(self, frame: bytes) -> None:
        step = self.machine.hello if self.machine.state is State.EXPECT_HELLO else self.prove_as_known
        with pytest.raises((Malformed, Refused)):
            step(frame)
        assert self.machine.state is State.OVER

    def prove_as_known(self, frame: bytes) -> str:
        return self.machine.prove(frame, worker())

    @precondition(lambda self: self.machine.state is State.EXPECT_PROVE)
    @rule(
        signer=st.sampled_from([KEY, OTHER_KEY]),
        changed=st.dictionaries(
            st.sampled_from(["cluster", "worker", "client_nonce", "broker_nonce", "binding"]), st.just(b"x"), max_size=2
        ),
        row=st.sampled_from([None, worker(), worker(keys=())]),
        flipped=st.one_of(st.none(), st.integers(0, 511)),
    )
    def proves(
        self, signer: Ed25519PrivateKey, changed: dict[str, bytes], row: WorkerRecord | None, flipped: int | None
    ) -> None:
        signature = bytearray(signer.sign(transcript(**changed)))
        if flipped is not None:
            signature[flipped // 8] ^= 1 << flipped % 8
        entitled = self.honest_hello and signer is KEY and not changed and flipped is None
        entitled = entitled and row is not None and bool(row.keys)
        try:
            self.machine.prove(prove(bytes(signature)), row)
        except Refused:
            assert not entitled
        else:
            assert entitled
        assert self.machine.state is State.OVER

    @precondition(lambda self: self.machine.state is State.OVER)
    @rule()
    def is_over_for_good(self) -> None:
        with pytest.raises(AssertionError):
            self.machine.hello(hello())
        with pytest.raises(AssertionError):
            self.prove_as_known(prove(KEY.sign(transcript())))


Proving.TestCase.settings = settings(max_examples=60, stateful_step_count=6, deadline=None)
TestProving = Proving.TestCase


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_escape_the_handshake_s_own_errors(frame: bytes) -> None:
    """Whatever bytes come first, the handshake says Malformed or Refused: nothing else, which would end the handler."""
    with pytest.raises((Malformed, Refused)):
        handshake().hello(frame)
