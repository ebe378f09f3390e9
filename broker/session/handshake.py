"""The handshake as a state machine without I/O: hello, challenge, prove. One attempt, one identity, set once.

Whoever drives it looks the worker up between `hello` and `prove` and enforces the deadline. A refusal carries the
reason for the audit log; the worker is told the same in every case.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum
from typing import Final, NoReturn, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.errors import Unauthenticated
from storage.records import WorkerRecord
from tokenbroker_client.transcript import session_transcript
from tokenbroker_client.wire import ENCODER, BadFrame, Challenge, Hello, Prove, b64, decode_client_frame, unb64

NONCE_BYTES: Final = 32
F = TypeVar("F", Hello, Prove)


class Refused(Unauthenticated):
    """The handshake failed; `reason` is for the audit log only."""

    def __init__(self, reason: str) -> None:
        super().__init__("unauthenticated")
        self.reason = reason


class Malformed(Exception):
    """The peer sent something that is no frame of this protocol."""


class State(Enum):
    """Where a handshake stands. Each step is possible in exactly one state."""

    EXPECT_HELLO = "expect_hello"
    EXPECT_PROVE = "expect_prove"
    OVER = "over"


class Handshake:
    """One connection's attempt. `bindings`: the channel bindings this connection may have (b"" for plaintext)."""

    __slots__ = ("_bindings", "_client_nonce", "_cluster", "_nonce", "_public_key", "client", "state", "worker")

    def __init__(self, *, cluster: str, nonce: bytes, bindings: tuple[bytes, ...]) -> None:
        self._cluster = cluster
        self._nonce = nonce
        self._bindings = bindings
        self._client_nonce = b""
        self._public_key = b""
        self.state = State.EXPECT_HELLO
        self.worker = ""
        self.client = ""

    def hello(self, frame: bytes) -> bytes:
        """Take the first frame; the challenge to send. Malformed, Refused: it is over."""
        hello = self._step(frame, State.EXPECT_HELLO, Hello)
        self.worker = hello.worker
        self.client = hello.client or ""
        self._client_nonce = self._bytes(hello.nonce)
        if hello.auth != "ed25519" or hello.public_key is None:
            self._refuse("method")
        self._public_key = self._bytes(hello.public_key)
        self.state = State.EXPECT_PROVE
        return ENCODER.encode(Challenge(cluster=self._cluster, nonce=b64(self._nonce)))

    def prove(self, frame: bytes, worker: WorkerRecord | None) -> str:
        """Take the proof; the hex SHA-256 of the proved key. `worker`: its row as it is now, None for an unknown name.

        Disabled and expired workers are the caller's to refuse. Malformed, Refused: it is over.
        """
        prove = self._step(frame, State.EXPECT_PROVE, Prove)
        self.state = State.OVER
        if prove.signature is None:
            self._refuse("method")
        signature = self._bytes(prove.signature)
        # The signature is checked before the name and the key, so that an unknown worker costs what a known one does.
        proved = any(self._signed(signature, binding) for binding in self._bindings)
        if worker is None:
            self._refuse("unknown_worker")
        if worker.auth != "ed25519":
            self._refuse("method")
        if not any(hmac.compare_digest(key.public_key, self._public_key) for key in worker.keys):
            self._refuse("unknown_key")
        if not proved:
            self._refuse("signature")
        return hashlib.sha256(self._public_key).hexdigest()

    @property
    def public_key(self) -> bytes:
        """The key that was offered; proved only after `prove` returned."""
        return self._public_key

    def _signed(self, signature: bytes, binding: bytes) -> bool:
        transcript = session_transcript(
            cluster_id=self._cluster,
            worker=self.worker,
            public_key=self._public_key,
            client_nonce=self._client_nonce,
            broker_nonce=self._nonce,
            channel_binding=binding,
        )
        try:
            Ed25519PublicKey.from_public_bytes(self._public_key).verify(signature, transcript)
        except (InvalidSignature, ValueError):
            return False
        return True

    def _step(self, frame: bytes, state: State, kind: type[F]) -> F:
        if self.state is not state:
            raise AssertionError(f"a handshake in state {self.state.value} takes no {kind.__name__}")
        try:
            decoded = decode_client_frame(frame)
        except BadFrame as error:
            self.state = State.OVER
            raise Malformed(str(error)) from None
        if not isinstance(decoded, kind):
            self.state = State.OVER
            raise Malformed(f"expected {kind.__name__.lower()}")
        return decoded

    def _bytes(self, text: str) -> bytes:
        try:
            return unb64(text)
        except ValueError:
            self.state = State.OVER
            raise Malformed("not base64url without padding") from None

    def _refuse(self, reason: str) -> NoReturn:
        self.state = State.OVER
        raise Refused(reason)
