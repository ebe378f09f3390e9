"""One connection to a fake broker: the handshake and the requests, as the wire protocol has them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSMsgType, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tokenbroker_client.testing.fake_state import FakeLease, FakeState, Refusal
from tokenbroker_client.transcript import session_transcript
from tokenbroker_client.wire import (
    HANDSHAKE_S,
    Ack,
    BadEncoding,
    BadFrame,
    Challenge,
    ClientFrame,
    CloseCode,
    Error,
    ErrorCode,
    GoneLease,
    Hello,
    LeaseRequest,
    LiveLease,
    Prove,
    Release,
    Released,
    Renew,
    Renewed,
    Report,
    Resume,
    Resumed,
    Rotated,
    ServerFrame,
    Welcome,
    b64,
    decode_client_frame,
    encode_frame,
    unb64,
)

_MALFORMED_MAX: Final = 3


class Refused(Exception):
    """Close the connection with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code.name)
        self.code = code


class FakeSession:
    """Serves one WebSocket until it ends."""

    def __init__(self, *, state: FakeState, websocket: web.WebSocketResponse, binding: bytes) -> None:
        self.session = secrets.token_urlsafe(9)
        self.worker = ""
        self.draining = False
        self._state = state
        self._websocket = websocket
        self._binding = binding
        self._malformed = 0

    async def serve(self, welcomed: Callable[[FakeSession], None]) -> None:
        """Run the handshake, then answer requests until the WebSocket closes."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._handshake()
            welcomed(self)
            while (text := await self._receive()) is not None:
                await self._serve_frame(text)
        except TimeoutError:
            await self.close(CloseCode.HANDSHAKE_TIMEOUT)
        except Refused as refused:
            if refused.code is CloseCode.UNAUTHENTICATED:
                await self.send(Error(code=ErrorCode.UNAUTHENTICATED))
            await self.close(refused.code)

    async def send(self, frame: ServerFrame) -> None:
        """Send a frame; nothing when the connection is gone."""
        await self.send_text(encode_frame(frame))

    async def send_text(self, text: str) -> None:
        """Send any text as a frame; nothing when the connection is gone."""
        if not self._websocket.closed:
            try:
                await self._websocket.send_str(text)
            except ConnectionError:
                return

    async def close(self, code: CloseCode) -> None:
        """Close the WebSocket."""
        await self._websocket.close(code=code)

    # -- handshake ---------------------------------------------------------------------------------------------

    async def _handshake(self) -> None:
        hello = await self._expect(Hello)
        nonce = secrets.token_bytes(32)
        await self.send(Challenge(cluster=self._state.cluster, nonce=b64(nonce)))
        prove = await self._expect(Prove)
        assert isinstance(hello, Hello)
        assert isinstance(prove, Prove)
        self._verify(hello, prove, nonce)
        if hello.worker in self._state.disabled:
            raise Refused(CloseCode.FORBIDDEN)
        self.worker = hello.worker
        await self.send(
            Welcome(
                session=self.session,
                worker=self.worker,
                cluster=self._state.cluster,
                instance="fake",
                heartbeat_s=self._state.heartbeat_s,
            )
        )

    async def _expect(self, kind: type[Hello | Prove]) -> ClientFrame:
        text = await self._receive()
        if text is None:
            raise Refused(CloseCode.NORMAL)
        try:
            frame = decode_client_frame(text)
        except BadFrame:
            raise Refused(CloseCode.MALFORMED) from None
        if not isinstance(frame, kind):
            raise Refused(CloseCode.MALFORMED)
        return frame

    def _verify(self, hello: Hello, prove: Prove, nonce: bytes) -> None:
        registered = self._state.workers.get(hello.worker)
        try:
            public_key = unb64(hello.public_key or "", length=32)
            if registered != public_key:
                raise Refused(CloseCode.UNAUTHENTICATED)
            transcript = session_transcript(
                cluster_id=self._state.cluster,
                worker=hello.worker,
                public_key=public_key,
                client_nonce=unb64(hello.nonce, length=32),
                broker_nonce=nonce,
                channel_binding=self._binding,
            )
            signature = unb64(prove.signature or "", length=64)
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, transcript)
        except (BadEncoding, InvalidSignature):
            raise Refused(CloseCode.UNAUTHENTICATED) from None

    # -- requests ----------------------------------------------------------------------------------------------

    async def _receive(self) -> str | None:
        message = await self._websocket.receive()
        if message.type is WSMsgType.TEXT:
            text: str = message.data
            return text
        if message.type is WSMsgType.BINARY:
            return ""
        return None

    async def _serve_frame(self, text: str) -> None:
        try:
            frame = decode_client_frame(text)
        except BadFrame as error:
            self._malformed += 1
            if self._malformed >= _MALFORMED_MAX:
                raise Refused(CloseCode.MALFORMED) from None
            await self.send(Error(code=ErrorCode.BAD_REQUEST, id=error.request_id, message=str(error)))
            return
        self._state.requests.append(type(frame).__name__)
        if isinstance(frame, Ack):
            self._state.saw(frame, worker=self.worker)
            return
        if isinstance(frame, Report):
            self._state.heard(frame, worker=self.worker)
            return
        await self._state.answering.wait()
        answers: dict[type[ClientFrame], Callable[[ClientFrame], Awaitable[None]]] = {
            LeaseRequest: self._lease,
            Renew: self._renew,
            Release: self._release,
            Resume: self._resume,
        }
        answer = answers.get(type(frame))
        if answer is None:
            await self.send(Error(code=ErrorCode.BAD_REQUEST, message="the handshake is over"))
        else:
            await answer(frame)

    async def _lease(self, frame: ClientFrame) -> None:
        assert isinstance(frame, LeaseRequest)
        outcome = (
            Refusal(code=ErrorCode.UNAVAILABLE, retry_after_s=0.1)
            if self.draining
            else self._state.grant(frame, worker=self.worker, session=self.session)
        )
        if isinstance(outcome, Refusal):
            error = Error(
                id=frame.id,
                code=outcome.code,
                message=f"{frame.token} is refused: {outcome.code}",
                retry_after_s=outcome.retry_after_s,
            )
            await self.send(error)
        else:
            await self.send(outcome)

    async def _renew(self, frame: ClientFrame) -> None:
        assert isinstance(frame, Renew)
        live, gone = self._sort(frame.leases)
        renewed = tuple(LiveLease(lease=lease.lease, ttl_s=self._state.renew(lease)) for lease in live)
        await self.send(Renewed(id=frame.id, leases=renewed, gone=gone))

    async def _release(self, frame: ClientFrame) -> None:
        assert isinstance(frame, Release)
        live, gone = self._sort(frame.leases)
        for lease in live:
            lease.code = "released"
        await self.send(Released(id=frame.id, leases=tuple(lease.lease for lease in live), gone=gone))

    async def _resume(self, frame: ClientFrame) -> None:
        assert isinstance(frame, Resume)
        live, gone = self._sort(tuple(held.lease for held in frame.leases))
        versions = {held.lease: held.version for held in frame.leases}
        rotated: list[Rotated] = []
        for lease in live:
            lease.session = self.session
            follows = self._state.tokens[lease.token].of(lease.stage)
            if follows is not None and versions[lease.lease] != follows.version:
                rotated.append(self._state.rotated(lease))
        left = tuple(
            LiveLease(lease=lease.lease, ttl_s=max(0.0, lease.ends_at - self._state.elapsed())) for lease in live
        )
        await self.send(Resumed(id=frame.id, live=left, rotated=tuple(rotated), gone=gone))

    def _sort(self, leases: tuple[str, ...]) -> tuple[list[FakeLease], tuple[GoneLease, ...]]:
        live: list[FakeLease] = []
        gone: list[GoneLease] = []
        for lease in leases:
            entry = self._state.live(lease, self.worker)
            if isinstance(entry, FakeLease):
                live.append(entry)
            else:
                gone.append(GoneLease(lease=lease, code=entry))
        return live, tuple(gone)
