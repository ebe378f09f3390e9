"""Keeps the broker logged in: renews its token ahead of its end, logs in again when that fails or the token changed.

How a token is got is in `login`. One task owns the renewal; it lives as long as the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from kms.errors import Denied, KmsError, Unavailable
from kms.transit.errors import Forbidden
from kms.transit.login import REFUSED_S, Login, Source, facts_of, renew, revoke
from kms.transit.server import Server

RENEW_AFTER = 2 / 3
"""The share of a token's time after which it is renewed."""
RETRY_S = 1.0
"""How long a login that failed here, or got no answer, stands before another; also the shortest wait to a renewal."""
RELOGIN_S = 30.0
"""How long a login that may not look itself up is believed to be alive, whatever is refused to it."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Session:
    """The broker's login at one server. Calls share it, and share one login when it has to be repeated."""

    def __init__(self, *, uri: str, source: Source, server: Server, tasks: asyncio.TaskGroup) -> None:
        self._uri = uri
        self._source = source
        self._server = server
        self._tasks = tasks
        self._login: Login | None = None
        self._renew_at: float | None = None
        self._flight: asyncio.Task[Login | KmsError] | None = None
        self._failed: tuple[KmsError, float] | None = None
        self._warned = False
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Session({self._uri!r})"

    async def current(self) -> Login:
        """The login to use now. Unavailable, Denied, BadKey: there is none, and another try failed."""
        if self._login is not None and not self._source.changed():
            return self._login
        return await self._log_in()

    async def use(self, call: Callable[[str], Awaitable[T]]) -> T:
        """What `call` gives for the broker's token. If it is Forbidden and the token is stale, it is called once more.

        Raises Forbidden if the token is alive and may not, or if there is no other token; and what `call` raises.
        """
        if self._keeper is not None and self._keeper.done() and not self._closed:
            raise Denied("the task that renews its token has failed; restart the broker, and report the log")
        login = await self.current()
        try:
            return await call(login.token)
        except Forbidden:
            fresh = await self._instead_of(login)
            if fresh is None:
                raise
        return await call(fresh.token)

    async def _instead_of(self, refused: Login) -> Login | None:
        """Another login, if `refused` is stale and there is another; else None."""
        replaced = self._login is not None and self._login.token != refused.token
        if not replaced and not await self._stale(refused):
            return None
        # Asking took time, in which another call may have logged in.
        if self._login is not None and self._login.token != refused.token:
            return self._login
        fresh = await self._log_in()
        return fresh if fresh.token != refused.token else None

    async def _stale(self, login: Login) -> bool:
        if login.may_look_up:
            return await facts_of(self._server, login.token) is None
        # Nobody can say. Waiting keeps a policy that truly refuses from making a login of every refusal.
        return _now() - login.made_at >= RELOGIN_S

    async def _log_in(self) -> Login:
        """Log in, together with whoever wants that now. A cancelled caller leaves the login to the others."""
        if self._flight is None:
            if self._failed is not None and _now() < self._failed[1] and not self._source.mended():
                raise _again(self._failed[0])
            if self._closed:
                raise Unavailable("the key is closed")
            self._flight = self._tasks.create_task(self._fly())
        flight = self._flight
        try:
            outcome = await asyncio.shield(flight)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.cancelled() and (task is None or not task.cancelling()):
                raise Unavailable("the key is closed") from None
            raise
        if isinstance(outcome, KmsError):
            raise _again(outcome)
        return outcome

    async def _fly(self) -> Login | KmsError:
        try:
            login = await self._source.log_in()
        except OSError as error:
            outcome: Login | KmsError = Unavailable(f"{error.filename}: {error.strerror or type(error).__name__}")
        except KmsError as error:
            outcome = error
        else:
            outcome = login
        finally:
            self._flight = None
        if isinstance(outcome, KmsError):
            self._failed = (outcome, _now() + self._pause(outcome))
        else:
            self._take(outcome)
        return outcome

    def _pause(self, error: KmsError) -> float:
        return self._source.refused_s if isinstance(error, Denied) else RETRY_S

    def _take(self, login: Login) -> None:
        self._login, self._failed, self._warned = login, None, False
        self._renew_at = None
        if login.ttl_s is not None and (login.renewable or login.ours):
            self._renew_at = max(login.made_at + login.ttl_s * RENEW_AFTER, _now() + RETRY_S)
        self._changed.set()

    def start(self) -> None:
        """Begin to renew; `end` stops it."""
        self._keeper = self._tasks.create_task(self._keep())

    async def _keep(self) -> None:
        """Renew, for ever. Whatever it cannot explain ends it, and with it the session."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(self._renew_at):
                    await self._changed.wait()
            except TimeoutError:
                await self._renew_ahead()

    async def _renew_ahead(self) -> None:
        login = self._login
        if login is None:
            self._renew_at = None
            return
        try:
            renewed = await renew(self._server, login) if login.renewable else None
        except Unavailable as error:
            self._put_off(error)
            return
        except (Forbidden, KmsError):
            renewed = None
        if self._login is not login:
            return  # Somebody has logged in meanwhile.
        if renewed is not None and not _nearly_over(login, renewed):
            self._take(renewed)
            return
        try:
            fresh = await self._log_in()
        except KmsError as error:
            self._put_off(error)
        else:
            if fresh.token == login.token:
                self._renew_at = None  # There is no other token; its use will say when it ends.

    def _put_off(self, error: KmsError) -> None:
        """Try again later. Calls go on with the token while it lasts, and say what is wrong when it does not."""
        self._renew_at = _now() + (REFUSED_S if isinstance(error, Denied) else RETRY_S)
        if not self._warned:
            log.warning("%s: the token could not be renewed and serves until its end: %s", self._uri, error)
        self._warned = True

    async def end(self) -> None:
        """Log in and renew no more, and revoke a token of our own making, if the server answers."""
        self._closed = True
        login, self._login = self._login, None
        for task in (self._keeper, self._flight):
            if task is not None:
                task.cancel()
        if login is not None and login.ours:
            try:
                await revoke(self._server, login)
            except (Forbidden, KmsError):
                return  # It ends by itself.


@asynccontextmanager
async def keeping(*, uri: str, source: Source, server: Server) -> AsyncIterator[Session]:
    """A session, kept until the context ends. If its task fails, whoever opened it is cancelled, and told why."""
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    session = Session(uri=uri, source=source, server=server, tasks=tasks)
    session.start()
    try:
        yield session
    finally:
        # Not `async with`: the group would turn an exception of the body into a group of exceptions.
        try:
            await session.end()
        finally:
            await tasks.__aexit__(None, None, None)


def _nearly_over(before: Login, renewed: Login) -> bool:
    """Whether a renewal was cut short by the longest time that the token may live."""
    return before.ttl_s is not None and renewed.ttl_s is not None and renewed.ttl_s < before.ttl_s * RENEW_AFTER


def _again(error: KmsError) -> KmsError:
    return type(error)(str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()
