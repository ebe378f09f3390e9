"""One connected worker: takes its frames apart, hands requests to the desk, and writes what it is sent.

The connection itself belongs to `door`. Nothing here waits.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from broker.errors import BadRequest, BrokerError, RateLimited
from broker.leases.acknowledging import Acknowledge
from broker.leases.answers import error_frame
from broker.leases.granting import Grant
from broker.leases.held import Held, Place
from broker.leases.operation import Operation
from broker.leases.releasing import Release
from broker.leases.renewing import Renewal
from broker.leases.reporting import Report
from broker.leases.resuming import Resume
from broker.policy.entitlements import Entitlements
from broker.session.framing import pong_frame, text_frames
from broker.session.settings import SessionSettings
from kms.port import Caller
from storage.records import LeaseRecord, SessionRecord
from storage.records.leases import LeaseStage
from tokenbroker_client.wire import (
    IN_FLIGHT_MAX,
    Ack,
    BadFrame,
    CloseCode,
    GoneCode,
    Hello,
    LeaseRequest,
    Prove,
    Renew,
    Stage,
    decode_client_frame,
)
from tokenbroker_client.wire import (
    Release as ReleaseFrame,
)
from tokenbroker_client.wire import (
    Report as ReportFrame,
)
from tokenbroker_client.wire import (
    Resume as ResumeFrame,
)

_PREVIOUS: Final = Stage.PREVIOUS
"""Looked up once: naming a member of an enum costs as much as a call."""
_GONE_MAX: Final = 256
_NAMED_MAX: Final = 2048
"""Leases that the unanswered requests of one session may name together: two full frames."""
_ACKS_MAX: Final = 2048
"""Acknowledgements and reports of one session that may wait for the desk: two for each lease it may hold."""


class Takes(Protocol):
    """Where requests go: the desk."""

    def submit(self, operation: Operation) -> None: ...


class Closes(Protocol):
    """Who closes connections: the registry of sessions."""

    def close(self, session: Session, code: int) -> None: ...


class Session:
    """A proved connection of one worker. `record` is what storage has of it.

    behind: whether much was unread after the last write. Only writing makes it more, so while this is False, it is
    neither congested nor choked.
    """

    __slots__ = (
        "_acks",
        "_closes",
        "_desk",
        "_gone",
        "_in_flight",
        "_loop",
        "_malformed",
        "_named",
        "_reports",
        "_settings",
        "_slow",
        "_transport",
        "_unsent",
        "actor",
        "behind",
        "caller",
        "closed",
        "closing",
        "entitlements",
        "leases",
        "leaving",
        "public_key",
        "record",
        "revoking",
        "session",
        "source",
        "worker",
    )

    def __init__(
        self,
        *,
        record: SessionRecord,
        public_key: bytes,
        caller: Caller,
        entitlements: Entitlements,
        transport: asyncio.WriteTransport,
        desk: Takes,
        closes: Closes,
        settings: SessionSettings,
    ) -> None:
        self.record = record
        self.session = record.session
        self.worker = record.worker
        self.source = record.source
        self.actor = f"worker:{record.worker}"
        self.caller = caller
        self.entitlements = entitlements
        self.public_key = public_key
        self.closed = self.closing = self.leaving = False
        self.behind = False
        self.leases: dict[Place, Held] = {}
        self.revoking: dict[str, LeaseRecord] = {}
        self._transport = transport
        self._desk = desk
        self._closes = closes
        self._settings = settings
        self._in_flight: dict[int, int] = {}
        self._named = 0
        self._gone: dict[str, GoneCode] = {}
        self._malformed = 0
        self._acks = 0
        self._reports: dict[str, Report] = {}
        self._slow: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []

    def receive(self, frame: bytes) -> None:
        """Take one text frame. One that cannot be read is answered; the third without an id ends the session."""
        try:
            request = decode_client_frame(frame)
        except BadFrame as error:
            if error.unknown_type:
                self._complain(BadRequest(str(error)), error.request_id)
            else:
                self.malformed(str(error), error.request_id)
            return
        if isinstance(request, LeaseRequest):
            request_id, in_flight = request.id, self._in_flight
            if request_id in in_flight or len(in_flight) >= IN_FLIGHT_MAX:
                self._turn_down(request_id)
            else:
                in_flight[request_id] = 0
                stage: LeaseStage = "previous" if request.stage is _PREVIOUS else "current"
                self._desk.submit(Grant(self, request_id, request.token, request.ttl_s, stage, request.wait_s or 0.0))
        elif isinstance(request, Ack):
            self._acknowledge(request)
        elif isinstance(request, ReportFrame):
            self._report(request)
        elif isinstance(request, (Hello, Prove)):
            self.malformed("the handshake is over", None)
        elif self._admit(request.id, len(request.leases)):
            self._desk.submit(self._batch_request(request))

    def _may_wait(self) -> bool:
        """Count one more frame that gets no answer, or complain."""
        if self._acks >= _ACKS_MAX:
            self._complain(
                RateLimited(f"at most {_ACKS_MAX} acknowledgements and reports may wait", retry_after_s=0.1), None
            )
            return False
        self._acks += 1
        return True

    def _acknowledge(self, ack: Ack) -> None:
        if not self._may_wait():
            return
        self._desk.submit(
            Acknowledge(
                holder=self,
                lease=ack.lease,
                status=ack.status,
                version=ack.version or 0,
                detail=ack.detail or "",
            )
        )

    def _report(self, report: ReportFrame) -> None:
        waiting = self._reports.get(report.lease)
        if waiting is not None and waiting.event is report.event:
            waiting.again(version=report.version, retry_after_s=report.retry_after_s)
            return
        if not self._may_wait():
            return
        self._reports[report.lease] = Report(
            holder=self,
            lease=report.lease,
            event=report.event,
            version=report.version,
            retry_after_s=report.retry_after_s,
        )
        self._desk.submit(self._reports[report.lease])

    def reported(self, report: Report) -> None:
        """One report has been dealt with."""
        self._acks -= 1
        if self._reports.get(report.lease) is report:
            del self._reports[report.lease]

    def acknowledged(self) -> None:
        """One acknowledgement has been dealt with."""
        self._acks -= 1

    def _batch_request(self, request: Renew | ReleaseFrame | ResumeFrame) -> Operation:
        if isinstance(request, Renew):
            return Renewal(holder=self, leases=request.leases, request_id=request.id)
        if isinstance(request, ReleaseFrame):
            return Release(holder=self, leases=request.leases, request_id=request.id)
        stated = {lease.lease: lease.version for lease in request.leases}
        return Resume(holder=self, stated=stated, request_id=request.id)

    def _admit(self, request_id: int, leases_named: int) -> bool:
        """Count a request that names leases, or complain."""
        if request_id in self._in_flight or len(self._in_flight) >= IN_FLIGHT_MAX:
            self._turn_down(request_id)
            return False
        if self._named + leases_named > _NAMED_MAX:
            named = RateLimited(
                f"unanswered requests may name at most {_NAMED_MAX} leases together; await answers", retry_after_s=0.1
            )
            self._complain(named, request_id)
            return False
        self._in_flight[request_id] = leases_named
        self._named += leases_named
        return True

    def _turn_down(self, request_id: int) -> None:
        """Complain of one more request: its id is in flight, or as many are as may."""
        if request_id in self._in_flight:
            # Without the id: an answer that carries it belongs to the request that is in flight.
            self._complain(BadRequest(f"request id {request_id} is in flight; ids are unique until answered"), None)
        else:
            limit = RateLimited(f"at most {IN_FLIGHT_MAX} requests may be in flight; await answers", retry_after_s=0.1)
            self._complain(limit, request_id)

    def malformed(self, why: str, request_id: int | None) -> None:
        """Answer a frame that cannot be read. One that names a request is that request's failure, and no more."""
        self._complain(BadRequest(why), request_id)
        if request_id is None:
            self._malformed += 1
            if self._malformed >= self._settings.malformed_max:
                self.close(CloseCode.MALFORMED)

    def _complain(self, error: BrokerError, request_id: int | None) -> None:
        self.send(error_frame(error, request_id))

    def answer(self, request_id: int, frame: bytes) -> None:
        """Write the answer to a request and let its id be used again."""
        named = self._in_flight.pop(request_id, 0)
        if named:
            self._named -= named
        self.send(frame)

    def send(self, frame: bytes) -> None:
        """Write one frame. A worker that does not read is cut off; this never waits and never raises.

        Frames sent in one turn of the event loop leave in one write.
        """
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame)

    def pong(self, payload: bytes) -> None:
        """Answer a ping; not while much is unread, which the next ping will find out about."""
        if not (self.closed or self.congested or self._transport.is_closing()):
            self._write(pong_frame(payload))

    def _flush(self) -> None:
        frames = text_frames(self._unsent)
        self._unsent.clear()
        if not (self.closed or self._transport.is_closing()):
            self._write(frames)

    def _write(self, frames: bytes) -> None:
        """Write, and look at how much is unread: after pongs too, which a flood of pings would add up."""
        self._transport.write(frames)
        unread = self._transport.get_write_buffer_size()
        self.behind = unread > self._settings.backlog_bytes
        if self.behind and self._slow is None:
            self._slow = self._loop.call_later(self._settings.backlog_s, self._still_slow)
        if unread > self._settings.backlog_bytes_max:
            self._transport.abort()

    @property
    def congested(self) -> bool:
        """Whether so much is unread that reading on, and pushing values, should wait."""
        return self.behind and self._transport.get_write_buffer_size() > self._settings.backlog_bytes

    @property
    def choked(self) -> bool:
        """Whether so much is unread that requests for values are refused."""
        return self.behind and self._transport.get_write_buffer_size() > self._settings.backlog_granted_bytes

    def _still_slow(self) -> None:
        self._slow = None
        if self.congested:
            self._transport.abort()

    def close(self, code: int) -> None:
        """Begin to close the connection with this code; returns at once."""
        self._closes.close(self, code)

    def abort(self) -> None:
        """Cut the connection off without a closing handshake."""
        self._transport.abort()

    def ended(self) -> None:
        """The connection is gone."""
        self.closed = True
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def remember_gone(self, lease: str, code: GoneCode) -> None:
        """Keep why this lease ended, for the 256 latest."""
        self._gone[lease] = code
        while len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]

    def why_gone(self, lease: str) -> GoneCode:
        """Why a lease ended that this session held; "gone" for any other, whether or not it exists."""
        return self._gone.get(lease, GoneCode.UNKNOWN)

    @property
    def in_flight(self) -> int:
        """Requests not yet answered."""
        return len(self._in_flight)
