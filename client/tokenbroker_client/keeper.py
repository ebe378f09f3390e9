"""Keeping leases: asking for them, bringing them into the next session, asking again, giving them back.

What is known of each lease is in `roster` and `holding`, what the broker says of them is applied in `intake`, and
connections come from `link`. There is no timer here: the broker renews, a lease is over when its value is read too
late, and what the broker cannot renew is looked after when it is read and when the broker is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

from tokenbroker_client.acknowledger import Acknowledger
from tokenbroker_client.backoff import Backoff
from tokenbroker_client.connection import Answer, Connection
from tokenbroker_client.delivery import Delivery
from tokenbroker_client.errors import (
    BadRequest,
    BrokerError,
    Closed,
    ConnectionLost,
    Denied,
    Forbidden,
    Internal,
    NotFound,
    RateLimited,
    SessionRefused,
    TimedOut,
    Unavailable,
)
from tokenbroker_client.holding import Holding
from tokenbroker_client.intake import Intake
from tokenbroker_client.link import Link
from tokenbroker_client.roster import Roster
from tokenbroker_client.wire import (
    HeldLease,
    LeaseRequest,
    Release,
    ReportEvent,
    Resume,
    ServerFrame,
    Stage,
)

_RESUME_CHUNK: Final = 500
_RELEASE_S: Final = 2.0
_LEASES_RELEASED_AT_ONCE: Final = 1000


class Keeper:
    """All leases of one client, across sessions."""

    def __init__(
        self,
        *,
        link: Link,
        roster: Roster,
        acks: Acknowledger,
        tasks: asyncio.TaskGroup,
        backoff: Backoff,
        request_s: float,
        elapsed: Callable[[], float],
    ) -> None:
        self._link = link
        self._roster = roster
        self._tasks = tasks
        self._backoff = backoff
        self._request_s = request_s
        self._acks = acks
        self._elapsed = elapsed
        self._delivery = Delivery(spawn=self._spawn, acks=acks)
        self._intake = Intake(roster=roster, delivery=self._delivery, acks=acks, errands=self, elapsed=elapsed)
        self._background: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def acquire(self, token: str, ttl_s: float | None, stage: Stage, wait_s: float | None = None) -> Holding:
        """Lease a token in a stage and return its holding, with the caller as one more user.

        Waits at most the request deadline, for a connection and for the answer together, and `wait_s` more for a turn
        in line. Raises what the broker answers, ConnectionLost, TimedOut, SessionRefused and Closed; then, and when
        cancelled, no lease is left behind: a grant that comes too late is released.
        """
        if self._closed:
            raise Closed
        holding = self._roster.claim(token, stage)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            if self._spawn(self._acquire(holding, ttl_s, wait_s, outcome)) is None:
                outcome.set_exception(Closed())
            await outcome
        except BaseException:
            self._leave(holding)
            raise
        return holding

    def report(self, holding: Holding, event: ReportEvent, retry_after_s: float | None) -> None:
        """Have a report on the value sent. One that says what the last said less than a second ago is left out."""
        said = holding.reporting(event, retry_after_s, now=self._elapsed())
        if said is not None:
            self._acks.post(said)

    async def surrender(self, holding: Holding) -> None:
        """Count one user less; wipe and release after the last. Waits at most 2 s for the broker to confirm."""
        leaving = self._leave(holding)
        if leaving is not None:
            await asyncio.shield(leaving)

    def ask_again(self, holding: Holding, *, release_first: bool = False) -> None:
        """Ask, in the background, for another lease in place of one that ran out, or is about to."""
        if not holding.regranting and holding.users and not holding.final:
            holding.regranting = True
            self._spawn(self._regrant(holding, release_first=release_first))

    def drop(self, holding: Holding) -> None:
        """Give back, in the background, a lease that nobody uses."""
        self._spawn(self._drop(holding))

    async def session_began(self, connection: Connection) -> None:
        """Resume what is held, and ask again for what ran out meanwhile."""
        stated = self._roster.stated()
        for start in range(0, len(stated), _RESUME_CHUNK):
            await self._resume(connection, tuple(stated[start : start + _RESUME_CHUNK]))
        self.beat()

    def beat(self) -> None:
        """Look after every lease, now that the broker was heard: its heartbeat is the only clock that ticks here."""
        for holding in self._roster:
            self.look_after(holding)

    def look_after(self, holding: Holding) -> None:
        """Wipe a value that ran out unread, and ask for another lease where there is need of one."""
        if holding.ran_out:
            if holding.remaining_s <= 0.0:
                holding.expire()
            self.ask_again(holding)
        elif holding.wants_another:
            self.ask_again(holding, release_first=True)

    def pushed(self, frame: ServerFrame) -> None:
        """Apply what the broker pushes. Raises WireError for a value that is not what its encoding says."""
        self._intake.pushed(frame)

    def ended(self, why: BrokerError, *, was_open: bool) -> None:
        """Tell every reader that no change will come; after a live session was forbidden, wipe everything."""
        for holding in self._roster:
            if was_open and isinstance(why, Forbidden) and not holding.final:
                self._delivery.deliver(holding, holding.revoke(str(why)), None)
            for listener in holding.listeners:
                listener.feed.fail(why)

    async def close(self) -> None:
        """Give back and wipe everything, and end what runs in the background. Takes at most about 4 s."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_RELEASE_S)
        self._closed = True
        for task in self._background:
            task.cancel()
        leases = []
        for holding in self._roster:
            lease = self._roster.unbind(holding)
            if lease is not None:
                leases.append(lease)
            holding.release()
            for listener in holding.listeners:
                listener.feed.fail(Closed())
        for start in range(0, len(leases), _LEASES_RELEASED_AT_ONCE):
            await self._release(tuple(leases[start : start + _LEASES_RELEASED_AT_ONCE]))

    # -- asking ------------------------------------------------------------------------------------------------

    async def _acquire(
        self, holding: Holding, ttl_s: float | None, wait_s: float | None, outcome: asyncio.Future[None]
    ) -> None:
        """Ask in a task of its own, so that a caller who gives up leaves nobody in doubt about what was granted."""
        try:
            await self._ask_in_time(holding, ttl_s, wait_s)
        except (BrokerError, asyncio.CancelledError) as error:
            if not outcome.done():
                outcome.set_exception(Closed() if isinstance(error, asyncio.CancelledError) else error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            if not outcome.done():
                outcome.set_result(None)

    async def _ask_in_time(self, holding: Holding, ttl_s: float | None, wait_s: float | None) -> None:
        connection: Connection | None = None
        holding.ttl_asked_s, holding.wait_asked_s = ttl_s, wait_s
        deadline_s = self._request_s + (wait_s or 0.0)
        wait_until = self._elapsed() + (wait_s or 0.0)
        try:
            async with asyncio.timeout(deadline_s), holding.turn:
                while holding.users:
                    connection = await self._link.usable(instead_of=connection)
                    try:
                        left_s = max(0.0, wait_until - self._elapsed()) if wait_s else None
                        await self._ask(connection, holding, ttl_s, wait_s=left_s)
                    except ConnectionLost:
                        continue  # whatever it granted ends with its session; the next connection may do
                    except (Unavailable, RateLimited):
                        if self._link.connected is connection:
                            raise
                        continue  # it said goaway before it said no, so another replica is the one to ask
                    return
        except TimeoutError:
            if self._link.connected is not None:
                raise TimedOut(f"the broker did not answer within {deadline_s:g} s") from None
            raise ConnectionLost(
                f"there was no connection for {deadline_s:g} s: {self._link.last_loss or 'none was made'}"
            ) from self._link.last_loss

    async def _ask(
        self, connection: Connection, holding: Holding, ttl_s: float | None, *, wait_s: float | None = None
    ) -> None:
        await connection.ask(
            lambda number: LeaseRequest(
                id=number,
                token=holding.token,
                ttl_s=ttl_s,
                stage=None if holding.stage is Stage.CURRENT else holding.stage,
                wait_s=wait_s,
            ),
            self._intake.granted,
        )

    async def _regrant(self, holding: Holding, *, release_first: bool) -> None:
        """Ask until there is a lease, the broker says no, or nobody wants one. Pauses between tries as it is told."""
        failures = 0
        try:
            while holding.users and not holding.final:
                try:
                    connection = await self._link.usable()
                    # In line like the first time: else whoever stands there would be served before it for ever.
                    wait_s = holding.wait_asked_s
                    async with asyncio.timeout(self._request_s + (wait_s or 0.0)), holding.turn:
                        if release_first:
                            await self._release_now(connection, holding)
                        await self._ask(connection, holding, holding.ttl_asked_s, wait_s=wait_s)
                except (Denied, NotFound, BadRequest) as error:
                    if not holding.final:
                        self._delivery.deliver(holding, holding.deny(str(error)), None)
                    return
                except (SessionRefused, Closed):
                    return
                except (BrokerError, TimeoutError) as error:
                    wish = error.retry_after_s if isinstance(error, BrokerError) else None
                else:
                    return
                await asyncio.sleep(self._backoff.pause_s(failures, at_least_s=wish))
                failures += 1
        finally:
            holding.regranting = False

    async def _release_now(self, connection: Connection, holding: Holding) -> None:
        lease = self._roster.unbind(holding)
        if lease is not None:
            await connection.ask(lambda number: Release(id=number, leases=(lease,)), _ignore)

    async def _resume(self, connection: Connection, stated: tuple[HeldLease, ...]) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._request_s):
                    await connection.ask(
                        lambda number: Resume(id=number, leases=stated), partial(self._intake.resumed, stated)
                    )
            except ConnectionLost:
                return  # the link has noticed, or will; the next session resumes
            except (TimeoutError, RateLimited, Unavailable, Internal) as error:
                wish = error.retry_after_s if isinstance(error, BrokerError) else None
            except BrokerError as error:
                for held in stated:
                    self._intake.lost(held.lease, error.code)
                return
            else:
                return
            await asyncio.sleep(self._backoff.pause_s(failures, at_least_s=wish))
            failures += 1

    # -- giving back -------------------------------------------------------------------------------------------

    def _leave(self, holding: Holding) -> asyncio.Task[None] | None:
        holding.users -= 1
        if holding.users:
            return None
        holding.release()
        task = self._spawn(self._drop(holding))
        if task is not None:
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        return task

    async def _drop(self, holding: Holding) -> None:
        try:
            async with asyncio.timeout(_RELEASE_S), holding.turn:
                lease = self._roster.unbind(holding)
                if lease is not None:
                    await self._release((lease,))
        except TimeoutError:
            return  # another request for this token is in doubt; the broker ends the lease in its time
        finally:
            self._roster.forget(holding)

    async def _release(self, leases: tuple[str, ...]) -> None:
        """Release as far as that can be done at present; without a connection the leases run out on their own."""
        connection = self._link.connected
        if connection is None:
            return
        try:
            async with asyncio.timeout(_RELEASE_S):
                await connection.ask(lambda number: Release(id=number, leases=leases), _ignore)
        except (BrokerError, TimeoutError):
            return

    # -- tasks -------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[object, None, None]) -> asyncio.Task[None] | None:
        """Run work in the background of the `connect` block; nothing once that is closing."""
        if self._closed:
            work.close()
            return None
        try:
            task = self._tasks.create_task(work)
        except RuntimeError:  # the group is being cancelled
            work.close()
            return None
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _ignore(_answer: Answer, _since: float) -> None:
    """A release needs no more than its answer."""
