"""The WebSocket endpoint: a thin aiohttp shell that lets workers in and carries their frames.

Order: cheap refusals before the upgrade, the handshake under its deadline, then frames until the connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import WSMsgType, web

from broker.authority.book import Book
from broker.clock import Clock
from broker.errors import BrokerError
from broker.ids import time_ordered_id
from broker.leases.answers import error_frame
from broker.leases.desk import Desk, Writer
from broker.policy.book import GrantBook
from broker.session.attempts import Attempts
from broker.session.handshake import NONCE_BYTES, Handshake, Malformed, Refused, State
from broker.session.session import Session
from broker.session.sessions import Sessions
from broker.session.settings import SessionSettings
from broker.sources import source_key
from kms.port import Caller
from storage.records import SessionRecord, WorkerRecord
from tokenbroker_client.wire import ENCODER, FRAME_BYTES_MAX, SUBPROTOCOL, CloseCode, Error, ErrorCode, Welcome

log = structlog.get_logger()

_UNAUTHENTICATED: Final = ENCODER.encode(Error(code=ErrorCode.UNAUTHENTICATED))
_TEXT: Final = WSMsgType.TEXT
_PAUSE_S: Final = 0.05
_FRAMES_AT_ONCE: Final = 32
"""Frames of one worker, all its sessions together, that are taken before everybody else has had a turn."""
_PINGS_MAX: Final = 8
"""Pings and pongs before each frame of a handshake."""
_CLOSE_S: Final = 2.0
"""How long a closing connection may take to answer, and to read what was written to it."""
_FAREWELL_S: Final = 0.5
"""The same for one that proved nothing: meanwhile everything it sends has to be read."""


class _Left(Exception):
    """The peer went away before the handshake was over."""


class _Flood(Exception):
    """The peer sends what no handshake needs, and too much of it to be read to its end."""


class Door:
    """Handles `GET /v1/connect`."""

    def __init__(
        self,
        *,
        cluster: str,
        instance: str,
        workers: Book[WorkerRecord],
        grants: GrantBook,
        desk: Desk,
        sessions: Sessions,
        writer: Writer,
        clock: Clock,
        settings: SessionSettings,
        bindings: Callable[[ssl.SSLContext], tuple[bytes, ...]],
    ) -> None:
        """bindings: the digests of the leaf certificates that a TLS connection of this context may have seen."""
        self._cluster = cluster
        self._instance = instance
        self._workers = workers
        self._grants = grants
        self._desk = desk
        self._sessions = sessions
        self._writer = writer
        self._clock = clock
        self._settings = settings
        self._bindings = bindings
        self._attempts = Attempts(clock=clock, failures_max=settings.failures_max, failures_s=settings.failures_s)
        self._unproved = 0
        self._unproved_by: Counter[str] = Counter()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection from upgrade to close."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            compress=False,
            timeout=_CLOSE_S,
            max_msg_size=FRAME_BYTES_MAX + 1,  # aiohttp's is the first length that is too much
            heartbeat=self._settings.heartbeat_s,
            autoping=False,  # or a flood of pings would be answered without a pause for others
            decode_text=False,
        )
        try:
            await socket.prepare(request)
        except ConnectionResetError:
            # Whoever asked has hung up meanwhile, as many do when thousands come back at once. A socket that is half
            # prepared cannot be ended; of this one, aiohttp finds out by itself that there is nobody to send it to.
            return web.Response(status=HTTPStatus.SWITCHING_PROTOCOLS)
        socket.headers.clear()  # they were sent, and would stay as long as the connection
        source = request.remote or ""
        if self._settings.by_source and self._attempts.barred(source):
            await _turn_away(socket, b"", CloseCode.TOO_MANY)
            return socket
        session = await self._let_in(request, socket, source)
        if session is not None:
            await self._serve(session, socket, request)
        return socket

    def _refusal(self, request: web.Request) -> web.Response | None:
        """What is answered instead of an upgrade."""
        if "Origin" in request.headers:
            return web.Response(status=403, text="this is no endpoint for browsers\n")
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        if SUBPROTOCOL not in [name.strip() for name in offered.split(",")]:
            return web.Response(status=400, text=f"upgrade to a WebSocket with subprotocol {SUBPROTOCOL}\n")
        if self._sessions.draining or self._crowded(source_key(request.remote or "")):
            return web.Response(status=503, headers={"Retry-After": "1"}, text="too many connections at once\n")
        return None

    def _crowded(self, key: str) -> bool:
        """Whether as many as may are on their way in, from everywhere or from this source."""
        if self._unproved >= self._settings.handshakes_max:
            return True
        return self._settings.by_source and self._unproved_by[key] >= self._settings.handshakes_per_source_max

    @contextlib.contextmanager
    def _on_its_way(self, key: str) -> Iterator[None]:
        self._unproved += 1
        self._unproved_by[key] += 1
        try:
            yield
        finally:
            self._unproved -= 1
            self._unproved_by[key] -= 1
            if not self._unproved_by[key]:
                del self._unproved_by[key]

    async def _let_in(self, request: web.Request, socket: web.WebSocketResponse, source: str) -> Session | None:
        """Carry out the handshake; None when it failed and the connection is closed."""
        handshake = Handshake(cluster=self._cluster, nonce=os.urandom(NONCE_BYTES), bindings=self._bindings_of(request))
        with self._on_its_way(source_key(source)):
            return await self._welcomed(request, socket, source, handshake)

    async def _welcomed(
        self, request: web.Request, socket: web.WebSocketResponse, source: str, handshake: Handshake
    ) -> Session | None:
        try:
            async with asyncio.timeout(self._settings.handshake_s):
                return await self._shake_hands(request, socket, source, handshake)
        except TimeoutError:
            if handshake.state is not State.OVER:
                # The peer was waited for; counted, so that one address cannot hold every place for unproved ones.
                await self._note(source, "deadline", handshake.worker)
            await _turn_away(socket, b"", CloseCode.HANDSHAKE_TIMEOUT)
        except Malformed as error:
            await self._note(source, "malformed", handshake.worker)
            frame = ENCODER.encode(Error(code=ErrorCode.BAD_REQUEST, message=str(error)[:256]))
            await _turn_away(socket, frame, CloseCode.MALFORMED)
        except _Flood:
            await self._note(source, "malformed", handshake.worker)
            if request.transport is not None:
                request.transport.abort()
        except Refused as error:
            await self._note(source, error.reason, handshake.worker)
            await _turn_away(socket, _UNAUTHENTICATED, CloseCode.UNAUTHENTICATED)
        except BrokerError as error:
            await _turn_away(socket, error_frame(error), CloseCode.GOING_AWAY)
        except (_Left, ConnectionError):
            pass
        return None

    async def _shake_hands(
        self, request: web.Request, socket: web.WebSocketResponse, source: str, handshake: Handshake
    ) -> Session | None:
        await _send(socket, handshake.hello(await _frame(socket)))
        proof = await _frame(socket)
        worker = self._workers.get((handshake.worker,))
        key_sha256 = handshake.prove(proof, worker)
        now = self._clock.now()
        if worker is None or worker.disabled:
            raise Refused("worker_disabled")
        if worker.expires_at is not None and worker.expires_at <= now:
            raise Refused("worker_expired")
        if self._sessions.full(worker.name):
            await _turn_away(socket, b"", CloseCode.TOO_MANY)
            return None
        record = SessionRecord(
            session=time_ordered_id(now),
            worker=worker.name,
            instance=self._instance,
            source=source,
            client=handshake.client,
            connected_at=now,
        )
        session = self._session(request, record, worker, handshake.public_key)
        await self._sessions.opened(session, socket, key_sha256=key_sha256)
        session.send(
            ENCODER.encode(
                Welcome(
                    session=record.session,
                    worker=worker.name,
                    cluster=self._cluster,
                    instance=self._instance,
                    heartbeat_s=self._settings.heartbeat_s,
                )
            )
        )
        return session

    def _session(self, request: web.Request, record: SessionRecord, worker: WorkerRecord, public_key: bytes) -> Session:
        transport = request.transport
        if transport is None:
            raise _Left
        return Session(
            record=record,
            public_key=public_key,
            caller=Caller(worker=worker.name, groups=worker.groups),
            entitlements=self._grants.for_worker(worker.name, worker.groups),
            transport=transport,
            desk=self._desk,
            closes=self._sessions,
            settings=self._settings,
        )

    async def _serve(self, session: Session, socket: web.WebSocketResponse, request: web.Request) -> None:
        """Carry frames until the connection ends, whoever ends it."""
        left = 1
        try:
            while True:
                message = await socket.receive()
                left -= 1
                if message.type is _TEXT:
                    # What was sent behind the frame that made us close is not taken.
                    if not session.closing:
                        session.receive(message.data)
                elif message.type is WSMsgType.BINARY:
                    if not session.closing:
                        session.malformed("frames are text", None)
                elif message.type is WSMsgType.PING:
                    session.pong(message.data)
                elif message.type is not WSMsgType.PONG:
                    break
                while session.behind and session.congested and not socket.closed:
                    await self._clock.sleep(_PAUSE_S)
                if not left:
                    # What lies ready is received without a pause, and a flood of it would leave no time for others.
                    await asyncio.sleep(0)
                    left = max(1, _FRAMES_AT_ONCE // (len(self._sessions.of_worker(session.worker)) or 1))
        except ConnectionError:
            pass
        finally:
            _let_go(request.transport)
            await self._sessions.closed(session, socket.close_code or CloseCode.NORMAL)

    def _bindings_of(self, request: web.Request) -> tuple[bytes, ...]:
        transport = request.transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        own = (b"",) if tls is None else self._bindings(tls.context)
        return (*self._settings.bindings, *own) if self._settings.bindings else own

    async def _note(self, source: str, reason: str, worker: str) -> None:
        entry = self._attempts.failed(source, reason, worker)
        if entry is None:
            return
        try:
            await self._writer.commit([entry])
        except BrokerError as error:
            log.warning("refusal_not_recorded", source=source, reason=reason, error=str(error))


async def _frame(socket: web.WebSocketResponse) -> bytes:
    """The next text frame; pings before it are answered, as many as anybody needs within a handshake."""
    for _ in range(_PINGS_MAX + 1):
        message = await socket.receive()
        if message.type is WSMsgType.TEXT:
            data: bytes = message.data
            return data
        if message.type is WSMsgType.BINARY:
            raise Malformed("frames are text")
        if message.type is WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is not WSMsgType.PONG:
            raise _Left
    raise _Flood


async def _turn_away(socket: web.WebSocketResponse, frame: bytes, code: CloseCode) -> None:
    """Say a last word, if there is one, and close; a peer that has gone already is no error."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            if frame:
                await _send(socket, frame)
            await socket.close(code=code)


def _let_go(transport: asyncio.Transport | None) -> None:
    """Cut off, before long, a peer that does not read what was last written: closing alone would keep it for ever."""
    if transport is not None and transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(_CLOSE_S, transport.abort)


async def _send(socket: web.WebSocketResponse, frame: bytes) -> None:
    if not socket.closed:
        await socket.send_frame(frame, WSMsgType.TEXT)
