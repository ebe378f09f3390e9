"""One session: requests out, answers matched to them by number, at most 256 unanswered at a time.

Which connection is the current one is for `link` to say; what frames mean for leases, for `roster`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from tokenbroker_client.errors import ANSWERS, BrokerError, ConnectionLost
from tokenbroker_client.frame_socket import FrameSocket
from tokenbroker_client.wire import (
    IN_FLIGHT_MAX,
    BadFrame,
    ClientFrame,
    Error,
    Granted,
    LeaseRequest,
    Release,
    Released,
    Renewed,
    Resume,
    Resumed,
    ServerFrame,
    Welcome,
    WireError,
)

Answer = Granted | Renewed | Released | Resumed
Request = LeaseRequest | Release | Resume
Settle = Callable[[Answer, float], None]
"""Takes an answer and the instant its request was written: a lease counts from no later than that."""

_ANSWER_TO: Final[dict[type[Request], type[Answer]]] = {
    LeaseRequest: Granted,
    Release: Released,
    Resume: Resumed,
}


@dataclass(frozen=True)
class _Unanswered:
    """A request on its way. `settle` runs in the reader, before any later frame is looked at."""

    expects: type[Answer]
    asked_at: float
    settle: Settle
    done: asyncio.Future[None]


class Connection:
    """One authenticated session and its unanswered requests."""

    def __init__(self, *, socket: FrameSocket, welcome: Welcome, elapsed: Callable[[], float]) -> None:
        self.welcome = welcome
        self._socket = socket
        self._elapsed = elapsed
        self._unanswered: dict[int, _Unanswered] = {}
        self._next_id = 1
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._lost: BrokerError | None = None

    @property
    def idle(self) -> bool:
        """Whether every request has its answer."""
        return not self._unanswered

    async def ask(self, request: Callable[[int], Request], settle: Settle) -> None:
        """Send a request under a free number, and return when `settle` has had its answer.

        Waits for room while 256 requests are unanswered. The caller brings the deadline. When it passes, or the caller
        is cancelled, a request that was written stays known, so `settle` still runs if its answer comes. Raises what
        the broker's error frame stands for, and ConnectionLost.
        """
        await self._room.acquire()
        number = self._next_id
        frame = request(number)
        if self._lost is not None:
            self._room.release()
            raise self._lost.fresh()
        self._next_id += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unanswered[number] = _Unanswered(_ANSWER_TO[type(frame)], self._elapsed(), settle, done)
        try:
            await self._socket.send(frame)
        except BadFrame:
            self._take(number)
            raise
        except ConnectionLost:
            done.cancel()
            raise
        await done

    async def send(self, frame: ClientFrame) -> None:
        """Send a frame that has no answer. Raises ConnectionLost."""
        await self._socket.send(frame)

    async def receive(self, *, within_s: float) -> ServerFrame | None:
        """Return the next push, or None when there was none in what arrived: a ping, or an answer, which is settled.

        Raises as `FrameSocket.receive` does, and ConnectionLost for an answer of the wrong kind.
        """
        frame = await self._socket.receive(within_s=within_s)
        if isinstance(frame, Granted | Released | Resumed) or (isinstance(frame, Renewed) and frame.id is not None):
            self._settle(frame)
            return None
        if isinstance(frame, Error):
            self._refuse(frame)
            return None
        return frame

    def lose(self, why: BrokerError) -> None:
        """Fail every request that has no answer, and all that come later."""
        self._lost = why
        while self._unanswered:
            entry = self._take(next(iter(self._unanswered)))
            if entry is not None and not entry.done.done():
                entry.done.set_exception(why.fresh())

    def _settle(self, answer: Answer) -> None:
        entry = self._take(answer.id)
        if entry is None:
            return
        if not isinstance(answer, entry.expects):
            self._fault(entry, f"it answered a request with `{type(answer).__name__.lower()}`")
        try:
            entry.settle(answer, entry.asked_at)
        except WireError as error:
            self._fault(entry, str(error))
        if not entry.done.done():
            entry.done.set_result(None)

    def _fault(self, entry: _Unanswered, what: str) -> NoReturn:
        """End the connection over an answer that cannot be used, and tell who waits for it."""
        error = ConnectionLost(f"the broker broke the protocol: {what}")
        if not entry.done.done():
            entry.done.set_exception(error.fresh())
        raise error

    def _refuse(self, error: Error) -> None:
        if error.id is None:
            self._socket.expect_pause(error.retry_after_s)
            return
        entry = self._take(error.id)
        if entry is not None and not entry.done.done():
            kind = ANSWERS.get(error.code, BrokerError)
            entry.done.set_exception(kind(error.message, retry_after_s=error.retry_after_s))

    def _take(self, number: int | None) -> _Unanswered | None:
        entry = self._unanswered.pop(number, None) if number is not None else None
        if entry is not None:
            self._room.release()
        return entry
