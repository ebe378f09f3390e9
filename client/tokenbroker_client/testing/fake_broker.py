"""The fake broker itself: what a test puts in, orders, and looks at. The protocol is in `fake_session`."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import msgspec
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tokenbroker_client.elapsed import elapsed_s
from tokenbroker_client.keys import WorkerKey
from tokenbroker_client.testing.fake_session import FakeSession
from tokenbroker_client.testing.fake_state import FakeLease, FakeState, FakeToken, Refusal, SeenAck, SeenReport
from tokenbroker_client.transcript import enrolment_transcript
from tokenbroker_client.wire import (
    CONNECT_PATH,
    FRAME_BYTES_MAX,
    SUBPROTOCOL,
    AckStatus,
    BadEncoding,
    CloseCode,
    ErrorCode,
    Goaway,
    LiveLease,
    Renewed,
    ReportEvent,
    Revoked,
    unb64,
)

_STOP_S: Final = 2.0


class EnrolBody(msgspec.Struct, frozen=True):
    """The body of an enrolment."""

    code: str
    public_key: str
    signature: str


class FakeBroker:
    """A broker in this process. Use it as an `async with` block; it listens on a free port of loopback.

    It grants every token that was put to every registered worker, unless told otherwise. It renews only when `renew`
    is called, so a test says how time passes. With `tls`, `certificate_der` is the leaf that clients will see.
    """

    def __init__(
        self,
        *,
        cluster: str = "fake-cluster",
        ttl_s: float = 300.0,
        max_ttl_s: float = 3600.0,
        heartbeat_s: float = 20.0,
        pings: bool = True,
        tls: ssl.SSLContext | None = None,
        certificate_der: bytes | None = None,
        elapsed: Callable[[], float] = elapsed_s,
    ) -> None:
        self._state = FakeState(
            cluster=cluster, ttl_s=ttl_s, max_ttl_s=max_ttl_s, heartbeat_s=heartbeat_s, elapsed=elapsed
        )
        self._state.answering.set()
        self._pings = pings
        self._tls = tls
        self._binding = hashlib.sha256(certificate_der).digest() if tls and certificate_der else b""
        self._sessions: set[FakeSession] = set()
        self._transports: set[asyncio.BaseTransport] = set()
        self._runner: web.AppRunner | None = None
        self._welcomed = asyncio.Event()
        self._upgrade_status: int | None = None
        self._port = 0
        self.attempts = 0
        """How many times a client asked for a connection, whatever came of it."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- listening ---------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'wss' if self._tls else 'ws'}://localhost:{self._port}"

    @property
    def cluster(self) -> str:
        """The cluster it says it is."""
        return self._state.cluster

    async def start(self) -> None:
        """Listen: the first time on a free port, after `stop` on the same one, remembering everything."""
        app = web.Application()
        app.router.add_get(CONNECT_PATH, self._connect)
        app.router.add_post("/v1/enroll", self._enroll)
        self._runner = web.AppRunner(app, shutdown_timeout=_STOP_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        await self.drop_connections(CloseCode.GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- workers -----------------------------------------------------------------------------------------------

    def register(self, worker: str, public_key: bytes) -> None:
        """Register a worker by its 32-byte public key."""
        self._state.workers[worker] = public_key

    def worker_key(self, worker: str) -> WorkerKey:
        """Make a key that names its worker and this cluster, and register it."""
        key = WorkerKey.generate(worker=worker, cluster=self.cluster)
        self.register(worker, key.public_key)
        return key

    def enrolment_code(self, worker: str) -> str:
        """Return a code that registers whoever redeems it as this worker, once."""
        code = f"tbe_{secrets.token_hex(6)}.{secrets.token_urlsafe(24)}"
        self._state.codes[code] = worker
        return code

    async def disable(self, worker: str) -> None:
        """Refuse a worker, and close its sessions with 4403."""
        self._state.disabled.add(worker)
        for session in list(self._sessions):
            if session.worker == worker:
                await session.close(CloseCode.FORBIDDEN)

    # -- tokens ------------------------------------------------------------------------------------------------

    def put(self, token: str, value: str | bytes, *, content_type: str = "text/plain") -> int:
        """Make this the token's current value, and return its version. Those who hold the token are not told.

        The value before is what leases of the previous version get.
        """
        before = self._state.tokens.get(token)
        if before is not None:
            before.previous = None
        version = before.version + 1 if before is not None else 1
        self._state.tokens[token] = FakeToken(
            name=token,
            value=value.encode("utf-8") if isinstance(value, str) else value,
            version=version,
            content_type=content_type,
            previous=before,
        )
        return version

    async def rotate(self, token: str, value: str | bytes, *, previous_valid_s: float | None = None) -> int:
        """Make this the token's current value, push it to those who hold the token, and return its version."""
        version = self.put(token, value)
        for session, lease in self._held():
            if lease.token == token:
                await session.send(self._state.rotated(lease, previous_valid_s=previous_valid_s))
        return version

    async def revoke(self, token: str, *, worker: str | None = None, reason: str = "") -> None:
        """Revoke the token's leases (of one worker, or of all), and push that."""
        for session, lease in self._held():
            if lease.token == token and worker in (None, lease.worker):
                lease.code = "revoked"
                await session.send(Revoked(leases=(lease.lease,), reason=reason))

    async def renew(self) -> None:
        """Renew every lease that a session holds, as a broker does at half the TTL, and push that."""
        for session, lease in self._held():
            left_s = self._state.renew(lease)
            await session.send(Renewed(leases=(LiveLease(lease=lease.lease, ttl_s=left_s),)))

    def limit_leases(self, *, until_s: float) -> None:
        """Let no lease, present or to come, last longer than `until_s` from here, as a grant that ends does."""
        self._state.limit_at = self._state.elapsed() + until_s

    def deny(self, token: str) -> None:
        """Refuse further requests for this token with `denied`."""
        self._state.denied.add(token)

    def allow(self, token: str) -> None:
        """Take a `deny` back."""
        self._state.denied.discard(token)

    def refuse_next(self, code: ErrorCode, *, times: int = 1, retry_after_s: float | None = None) -> None:
        """Answer the next lease requests with this error."""
        self._state.refusals += [Refusal(code=code, retry_after_s=retry_after_s)] * times

    # -- trouble -----------------------------------------------------------------------------------------------

    async def goaway(self, *, reconnect_in_s: float, reason: str = "draining") -> None:
        """Ask every session to reconnect, and refuse its further requests."""
        for session in list(self._sessions):
            session.draining = True
            await session.send(Goaway(reason=reason, reconnect_in_s=reconnect_in_s))

    async def drop_connections(self, code: CloseCode | None = None) -> None:
        """Close every connection with a code, or without one cut it as a broken network does."""
        if code is None:
            for transport in list(self._transports):
                if isinstance(transport, asyncio.WriteTransport):
                    transport.abort()
        for session in list(self._sessions):
            await session.close(code or CloseCode.GOING_AWAY)

    def hold_answers(self) -> None:
        """Answer no request until `release_answers`."""
        self._state.answering.clear()

    def release_answers(self) -> None:
        """Answer again, what waited included."""
        self._state.answering.set()

    def refuse_upgrades(self, status: int | None) -> None:
        """Answer every attempt to connect with this HTTP status; None: accept again."""
        self._upgrade_status = status

    async def send_text(self, text: str) -> None:
        """Send any text as a frame to every session."""
        for session in list(self._sessions):
            await session.send_text(text)

    # -- what was seen -----------------------------------------------------------------------------------------

    @property
    def acks(self) -> list[SeenAck]:
        """Every acknowledgement, in order."""
        return list(self._state.acks)

    @property
    def reports(self) -> list[SeenReport]:
        """Every report, in order."""
        return list(self._state.reports)

    @property
    def requests(self) -> list[str]:
        """The type name of every frame after a handshake, in order."""
        return list(self._state.requests)

    @property
    def leases(self) -> list[FakeLease]:
        """Every lease ever given; `code` tells which are over."""
        return list(self._state.leases.values())

    @property
    def live_leases(self) -> list[FakeLease]:
        """The leases that are not over."""
        entries = (self._state.live(lease.lease, lease.worker) for lease in self._state.leases.values())
        return [entry for entry in entries if isinstance(entry, FakeLease)]

    @property
    def sessions(self) -> int:
        """How many workers are connected."""
        return len(self._sessions)

    async def wait_for_ack(
        self, token: str, status: AckStatus, *, version: int | None = None, within_s: float = 5.0
    ) -> SeenAck:
        """Wait for such an acknowledgement, and return it. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                for ack in self._state.acks:
                    if (ack.token, ack.status) == (token, status) and version in (None, ack.version):
                        return ack
                self._state.acked.clear()
                await self._state.acked.wait()

    async def wait_for_report(self, token: str, event: ReportEvent, *, within_s: float = 5.0) -> SeenReport:
        """Wait for such a report, and return it. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                for report in self._state.reports:
                    if (report.token, report.event) == (token, event):
                        return report
                self._state.reported.clear()
                await self._state.reported.wait()

    async def wait_for_session(self, *, within_s: float = 5.0) -> None:
        """Wait until a worker is connected. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not self._sessions:
                self._welcomed.clear()
                await self._welcomed.wait()

    # -- requests ----------------------------------------------------------------------------------------------

    def _held(self) -> list[tuple[FakeSession, FakeLease]]:
        by_session = {session.session: session for session in self._sessions}
        return [(by_session[lease.session], lease) for lease in self.live_leases if lease.session in by_session]

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        if self._upgrade_status is not None:
            return web.Response(status=self._upgrade_status, headers={"Retry-After": "0"})
        if "Origin" in request.headers:
            return web.Response(status=403)
        websocket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=FRAME_BYTES_MAX,
            heartbeat=self._state.heartbeat_s if self._pings else None,
            timeout=0.5,
        )
        await websocket.prepare(request)
        session = FakeSession(state=self._state, websocket=websocket, binding=self._binding)
        transport = request.transport
        if transport is not None:
            self._transports.add(transport)
        try:
            await session.serve(self._welcome)
        finally:
            self._sessions.discard(session)
            if transport is not None:
                self._transports.discard(transport)
        return websocket

    def _welcome(self, session: FakeSession) -> None:
        self._sessions.add(session)
        self._welcomed.set()

    async def _enroll(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=EnrolBody)
            public_key = unb64(body.public_key, length=32)
            code_id = body.code.rpartition(".")[0]
            Ed25519PublicKey.from_public_bytes(public_key).verify(
                unb64(body.signature, length=64),
                enrolment_transcript(code_id=code_id, public_key=public_key),
            )
        except (msgspec.MsgspecError, BadEncoding, InvalidSignature):
            return _problem(400, "The enrolment cannot be read")
        worker = self._state.codes.pop(body.code, None)
        if worker is None:
            return _problem(403, "The code is wrong, used or expired")
        self.register(worker, public_key)
        return web.json_response({"worker": worker, "cluster": self.cluster})


def _problem(status: int, title: str) -> web.Response:
    """Write a problem document (RFC 9457)."""
    return web.json_response(
        {"type": "about:blank", "title": title, "status": status},
        status=status,
        content_type="application/problem+json",
    )
