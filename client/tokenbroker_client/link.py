"""Staying connected: dial, serve, lose, wait, dial again, until the broker says never or the app leaves.

A link knows nothing of leases: it tells its follower when a session begins, what it pushes, and when there will be no
more. Leases are in `roster`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from tokenbroker_client.backoff import Backoff
from tokenbroker_client.connection import Connection
from tokenbroker_client.dialler import Dialler
from tokenbroker_client.errors import BrokerError, Closed, ConnectionLost, SessionRefused
from tokenbroker_client.wire import Goaway, ServerFrame, WireError

_LOG: Final = logging.getLogger("tokenbroker_client")
_SILENT_HEARTBEATS: Final = 3
_STABLE_S: Final = 10.0
"""A session this long forgives the failures before it; a shorter one counts as one more."""
_SLOTS_BELIEVED: Final = 2
"""Sessions shorter than that, in a row, after which a slot alone no longer says when to dial."""
_FINISH_S: Final = 10.0
"""How long unanswered requests may hold up a reconnect that the broker asked for."""


class Follower(Protocol):
    """Who acts upon a link's sessions."""

    async def session_began(self, connection: Connection) -> None:
        """Bring leases of an earlier session over; until this returns, nobody else gets to use the connection."""

    def pushed(self, frame: ServerFrame) -> None:
        """Apply a push, before any later frame is looked at. Must not block."""

    def beat(self) -> None:
        """The broker was heard, by a ping or otherwise; called at most once a second. Must not block."""

    def ended(self, why: BrokerError, *, was_open: bool) -> None:
        """There will be no further session; `was_open` tells whether a live one ended so."""


class Link:
    """One worker's way to its broker."""

    def __init__(
        self,
        *,
        dialler: Dialler,
        backoff: Backoff,
        cluster: str | None,
        elapsed: Callable[[], float],
    ) -> None:
        self._dialler = dialler
        self._backoff = backoff
        self._cluster = cluster
        self._elapsed = elapsed
        self._usable: Connection | None = None
        self._open: Connection | None = None
        self._failure: BrokerError | None = None
        self._last_loss: BrokerError | None = None
        self._moved = asyncio.Event()
        self._ever_open = False
        self._reconnect_at: float | None = None
        self._beat_at = elapsed()

    @property
    def connected(self) -> Connection | None:
        """The connection that takes requests, if there is one."""
        return self._usable

    @property
    def cluster(self) -> str | None:
        """The cluster this link belongs to: the one it was told, or else the first that it met."""
        return self._cluster

    @property
    def failure(self) -> BrokerError | None:
        """Why there will be no further session, if that is so."""
        return self._failure

    @property
    def last_loss(self) -> BrokerError | None:
        """Why the latest connection, or attempt at one, ended."""
        return self._last_loss

    async def usable(self, *, instead_of: Connection | None = None) -> Connection:
        """Wait for a connection that takes requests, and is not the one that was just lost.

        The caller brings the deadline. Raises SessionRefused and Closed.
        """
        while self._usable is None or self._usable is instead_of:
            await self._change()
        return self._usable

    async def open(self, *, instead_of: Connection | None = None) -> Connection:
        """Wait for a connection that still takes acknowledgements; otherwise as `usable`."""
        while self._open is None or self._open is instead_of:
            await self._change()
        return self._open

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._fail(Closed())

    async def run(self, follower: Follower) -> None:
        """Stay connected until the broker refuses for good, or this task is cancelled."""
        failures = 0
        while True:
            began = self._elapsed()
            was_open = False
            try:
                async with self._dialler.dial(cluster=self._cluster) as connection:
                    self._ever_open = was_open = True
                    self._cluster = connection.welcome.cluster
                    why = await self._serve(connection, follower)
            except (ConnectionLost, SessionRefused) as error:
                why = error
            self._last_loss = why
            if isinstance(why, SessionRefused) and (why.final or not self._ever_open):
                self._fail(why)
                follower.ended(why, was_open=was_open)
                return
            if was_open and self._elapsed() - began >= _STABLE_S:
                failures = 0
            pause_s = self._pause_s(why, failures)
            failures += 1
            _LOG.info("no connection to the broker: %s; trying again in %.2f s", why, pause_s)
            await asyncio.sleep(pause_s)

    def _pause_s(self, why: BrokerError, failures: int) -> float:
        """The broker's own slot if it gave one, else a jittered back-off over what it asked for.

        A slot is for once: a broker that sends everybody away again and again is not to be dialled without a pause.
        """
        slot, self._reconnect_at = self._reconnect_at, None
        if slot is not None:
            left_s = max(0.0, slot - self._elapsed())
            return left_s if failures <= _SLOTS_BELIEVED else self._backoff.pause_s(failures, at_least_s=left_s)
        return self._backoff.pause_s(failures, at_least_s=why.retry_after_s)

    async def _serve(self, connection: Connection, follower: Follower) -> BrokerError:
        """Read until the connection ends, and return why it did."""
        self._open = connection
        why: BrokerError = ConnectionLost()
        try:
            async with asyncio.TaskGroup() as tasks:
                beginning = tasks.create_task(self._begin(connection, follower))
                why = await self._read(connection, follower)
                beginning.cancel()
        finally:
            self._open = self._usable = None
            connection.lose(why)
        return why

    async def _begin(self, connection: Connection, follower: Follower) -> None:
        await follower.session_began(connection)
        if self._open is connection and self._reconnect_at is None:
            self._usable = connection
            self._moved.set()

    async def _read(self, connection: Connection, follower: Follower) -> BrokerError:
        self._moved.set()
        silence_s = _SILENT_HEARTBEATS * connection.welcome.heartbeat_s
        while not self._may_leave(connection):
            try:
                async with asyncio.timeout(self._until_leaving_s(connection)):
                    frame = await connection.receive(within_s=silence_s)
                if isinstance(frame, Goaway):
                    self._depart(frame)
                elif frame is not None:
                    follower.pushed(frame)
            except TimeoutError:
                continue
            except (ConnectionLost, SessionRefused) as error:
                return error
            except WireError as error:
                return ConnectionLost(f"the broker broke the protocol: {error}")
            self._beat(follower)
        return ConnectionLost("the broker asked to reconnect")

    def _beat(self, follower: Follower) -> None:
        present = self._elapsed()
        if present - self._beat_at >= 1.0:
            self._beat_at = present
            follower.beat()

    def _depart(self, frame: Goaway) -> None:
        """Send no further request here. Pushes still count, so the connection stays until its slot has come."""
        _LOG.info("the broker goes away (%s); reconnecting in %.2f s", frame.reason, frame.reconnect_in_s)
        self._reconnect_at = self._elapsed() + frame.reconnect_in_s
        self._usable = None

    def _may_leave(self, connection: Connection) -> bool:
        if self._reconnect_at is None:
            return False
        overdue_s = self._elapsed() - self._reconnect_at
        return overdue_s >= (0.0 if connection.idle else _FINISH_S)

    def _until_leaving_s(self, connection: Connection) -> float | None:
        if self._reconnect_at is None:
            return None
        slot = self._reconnect_at + (0.0 if connection.idle else _FINISH_S)
        return max(0.0, slot - self._elapsed())

    async def _change(self) -> None:
        if self._failure is not None:
            raise self._failure.fresh()
        self._moved.clear()
        await self._moved.wait()
        if self._failure is not None:
            raise self._failure.fresh()

    def _fail(self, why: BrokerError) -> None:
        if self._failure is None:
            self._failure = why
        self._usable = None
        self._moved.set()
