"""All connections of this replica: who is here, who must go, and leaving in order.

A session's row is written before its worker is welcomed, and closed when the connection is gone. What happens on one
connection is `session`'s and `door`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog
from aiohttp import web

from broker.audit.entries import SessionClosed, SessionOpened
from broker.authority.book import Book
from broker.clock import Clock
from broker.errors import BrokerError, Conflict
from broker.leases.context import Context
from broker.leases.desk import Writer
from broker.leases.duties import Duties
from broker.leases.held import Held
from broker.policy.book import GrantBook
from broker.session.session import Session
from broker.session.settings import SessionSettings
from kms.port import Caller
from storage.records import WorkerRecord
from tokenbroker_client.wire import ENCODER, CloseCode, Goaway

log = structlog.get_logger()

_CLOSE_S: Final = 2.0
_EXPIRY_TICK_S: Final = 1.0
_RETRACT_S: Final = 5.0
"""After so long a commit that was not confirmed in time has either been written or never will be, but for a stall."""


class Sessions:
    """The registry of sessions. `run` owns the tasks that close connections and let expired workers go."""

    def __init__(
        self,
        *,
        writer: Writer,
        workers: Book[WorkerRecord],
        grants: GrantBook,
        context: Context,
        duties: Duties,
        clock: Clock,
        settings: SessionSettings,
    ) -> None:
        self._writer = writer
        self._workers = workers
        self._grants = grants
        self._context = context
        self._duties = duties
        self._clock = clock
        self._settings = settings
        self._sockets: dict[Session, web.WebSocketResponse] = {}
        self._by_worker: dict[str, tuple[Session, ...]] = {}
        self._opening: Counter[str] = Counter()
        self._codes: dict[Session, int] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.draining = False

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sockets))

    def of_worker(self, worker: str) -> Sequence[Session]:
        """The sessions of one worker, as of now."""
        return self._by_worker.get(worker, ())

    def full(self, worker: str) -> bool:
        """Whether this worker has as many sessions as it may, those counted that are being opened."""
        here = len(self.of_worker(worker)) + self._opening[worker]
        return here >= self._settings.sessions_per_worker_max

    async def run(self) -> None:
        """Let expired workers go, and own the closing of connections, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                while True:
                    await self._clock.sleep(_EXPIRY_TICK_S)
                    now = self._clock.now()
                    for worker in list(self._by_worker):
                        row = self._workers.get((worker,))
                        if row is not None and row.expires_at is not None and row.expires_at <= now:
                            self._dismiss(worker)
        finally:
            self._tasks = None

    async def opened(self, session: Session, socket: web.WebSocketResponse, *, key_sha256: str) -> None:
        """Record a session and list it. Raises Unavailable when it cannot be made durable; then it is not listed.

        What changed about the worker, its grants or this replica meanwhile is acted upon as for any listed session.
        """
        entry = SessionOpened(
            at=session.record.connected_at,
            actor=session.actor,
            session=session.session,
            source=session.source,
            client=session.record.client,
            key_sha256=key_sha256,
        )
        name = session.worker
        self._opening[name] += 1
        try:
            await self._writer.commit([entry], inserts=[session.record])
        except BaseException:
            self._retract(session)
            raise
        finally:
            self._opening[name] -= 1
            if not self._opening[name]:
                del self._opening[name]
        self._list(session, socket)

    def _list(self, session: Session, socket: web.WebSocketResponse) -> None:
        name = session.worker
        worker = self._workers.get((name,))
        if worker is not None and worker.single_session:
            for earlier in self.of_worker(name):
                earlier.close(CloseCode.SUPERSEDED)
        self._sockets[session] = socket
        self._context.holdings.enter(session)
        self._context.uses.note(session.actor, "", "", self._clock.monotonic())
        self._by_worker[name] = (*self.of_worker(name), session)
        # Changes that arrived while the row was being written passed this session by, for it was not listed.
        self.workers_changed((name,))
        if self.draining:
            self.close(session, CloseCode.RESTARTING)

    def _retract(self, session: Session) -> None:
        """A row that was not confirmed in time may be written all the same: nobody is behind it, so close it later."""
        if self._tasks is not None:
            self._tasks.create_task(self._retracted(session))

    async def _retracted(self, session: Session) -> None:
        await self._clock.sleep(_RETRACT_S)
        await self._record_end(session, CloseCode.GOING_AWAY)

    async def closed(self, session: Session, code: int) -> None:
        """The connection is gone: its leases run out or are resumed elsewhere; its row says so.

        Cancelling the caller does not stop the writing. code: what the connection ended with, if the peer ended it.
        """
        self._sockets.pop(session, None)
        others = tuple(other for other in self.of_worker(session.worker) if other is not session)
        if others:
            self._by_worker[session.worker] = others
        else:
            self._by_worker.pop(session.worker, None)
        session.ended()
        self._context.drop_session(session)
        self._context.uses.note(session.actor, "", "", self._clock.monotonic())
        recording = self._record_end(session, self._codes.pop(session, code))
        if self._tasks is None:
            await recording
        else:
            await asyncio.wait((self._tasks.create_task(recording),))

    async def _record_end(self, session: Session, code: int) -> None:
        now = self._clock.now()
        row = msgspec.structs.replace(
            session.record,
            rev=session.record.rev + 1,
            ended_at=now,
            close_code=code,
            due_at=now + timedelta(seconds=self._settings.record_retention_s),
        )
        entry = SessionClosed(at=now, actor=session.actor, session=session.session, close_code=code)
        try:
            await self._writer.commit([entry], updates=[row])
        except Conflict:
            # The row never came to be, or housekeeping closed it.
            return
        except BrokerError as error:
            # The row stays open until this replica starts again and closes what it left; nothing depends on it.
            log.warning("session_end_not_recorded", session=session.session, error=str(error))

    def close(self, session: Session, code: int) -> None:
        """Begin to close this connection; what it still sends is not taken."""
        socket = self._sockets.get(session)
        if socket is not None and self._tasks is not None and not session.closing:
            session.closing = True
            self._codes[session] = code
            self._tasks.create_task(self._close(session, socket, code))

    async def _close(self, session: Session, socket: web.WebSocketResponse, code: int) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.sleep(0)  # what was sent in this turn leaves before the close frame
                await socket.close(code=code)
        except (TimeoutError, ConnectionError):
            session.abort()
        except Exception:
            # One connection must not end the group that closes all of them.
            log.exception("session_not_closed", session=session.session)
            session.abort()

    def workers_changed(self, names: Iterable[str]) -> None:
        """These workers' rows changed: let go who may no longer be here, check again what the others hold."""
        for name in names:
            row = self._workers.get((name,))
            sessions = self.of_worker(name)
            if row is None or row.disabled:
                self._dismiss(name)
                continue
            known = {key.public_key for key in row.keys}
            for session in sessions:
                if session.public_key not in known:
                    self._let_go(session)
                else:
                    session.caller = Caller(worker=name, groups=row.groups)
            self._recheck(sessions)

    def grants_changed(self) -> None:
        """Some grants changed: check again what is held by those whom it concerns."""
        self._recheck(self)

    def _recheck(self, sessions: Iterable[Session]) -> None:
        concerned: list[Session] = []
        for session in sessions:
            row = self._workers.get((session.worker,))
            entitlements = self._grants.for_worker(session.worker, () if row is None else row.groups)
            if entitlements is not session.entitlements:
                session.entitlements = entitlements
                concerned.append(session)
        if concerned:
            self._duties.recheck(lambda: [held for session in concerned for held in session.leases.values()])

    def _dismiss(self, worker: str) -> None:
        """Revoke what this worker holds, then close its connections."""
        for session in self.of_worker(worker):
            self._let_go(session)

    def _let_go(self, session: Session) -> None:
        if self._tasks is None or session.leaving:
            return
        session.leaving = True
        looked = asyncio.Event()

        def find() -> list[Held]:
            looked.set()
            return list(session.leases.values())

        self._duties.recheck(find)
        self._tasks.create_task(self._close_when_revoked(session, looked))

    async def _close_when_revoked(self, session: Session, looked: asyncio.Event) -> None:
        """The worker hears of the revocation and has half a second to say that it wiped; then the connection closes."""
        deadline = self._clock.monotonic() + 0.5
        while self._clock.monotonic() < deadline:
            if looked.is_set() and not session.leases and not session.revoking:
                break
            await self._clock.sleep(0.02)
        self.close(session, CloseCode.FORBIDDEN)

    def start_over(self) -> None:
        """Close every connection: on record they may be closed already. Their workers come back and resume."""
        for session in self:
            self.close(session, CloseCode.RESTARTING)

    async def drain(self) -> None:
        """Ask every worker to reconnect, each in its own slot; then close what is left. Takes at most `drain_s`."""
        self.draining = True
        self._context.pools.turn_away()
        settings = self._settings
        # Not under a second, which is what a restart takes: who knocks earlier is only sent away.
        window_s = min(max(len(self) / settings.drain_slots_per_s, 1.0), settings.drain_s)
        sessions = list(self)
        for index, session in enumerate(sessions):
            slot_s = window_s * (index + 1) / len(sessions)
            session.send(ENCODER.encode(Goaway(reason="draining", reconnect_in_s=round(slot_s, 3))))
        deadline = self._clock.monotonic() + settings.drain_s
        while self._sockets and self._clock.monotonic() < deadline and any(s.in_flight for s in self):
            await self._clock.sleep(0.05)
        for session in list(self):
            self.close(session, CloseCode.RESTARTING)
        while self._sockets and self._clock.monotonic() < deadline + _CLOSE_S:
            await self._clock.sleep(0.02)
