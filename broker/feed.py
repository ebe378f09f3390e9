"""Follow the change feed: what any replica changed reaches this one's memory and its workers, in commit order.

Every cache is invalidated through here, also for changes that this process made. What to do about a change is its
subscribers' business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from broker.clock import Clock
from broker.errors import BrokerError, Tampered, Unavailable
from storage.errors import StorageError
from storage.port import PAGE_MAX, Change, Storage

log = structlog.get_logger()

_POLL_S = 0.25
_RETRY_S = 0.1
_READ_S = 5.0

Apply = Callable[[Sequence[Change]], Awaitable[None]]
Reload = Callable[[], Awaitable[None]]


class Feed:
    """Reads the feed from a position on and applies each page. `run` ends only by cancellation.

    missed: changes were forgotten before they were read here; all that depends on them is being read again.
    """

    def __init__(self, *, storage: Storage, clock: Clock, start: int, stale_s: float) -> None:
        self._storage = storage
        self._clock = clock
        self._stale_s = stale_s
        self._read_at = clock.monotonic()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.position = start
        self.tampered = ""
        self.missed = False

    @property
    def trouble(self) -> str:
        """Why new grants must be refused, or ""."""
        if self.tampered:
            return "stored rows were tampered with; new grants are refused until an operator has looked"
        if self.missed:
            return "changes were forgotten before this replica read them; new grants are refused until it has caught up"
        if self.silent_s > self._stale_s:
            return f"the change feed was not read for {self.silent_s:.1f} s; new grants are refused until it is"
        return ""

    @property
    def silent_s(self) -> float:
        """Seconds since the feed was last read and applied."""
        return self._clock.monotonic() - self._read_at

    async def run(self, apply: Apply, reload: Reload) -> None:
        """Read and apply, for ever. What cannot be read or applied now is tried again; nothing is skipped.

        reload: brings memory in line without the feed; asked for where the feed begins behind what was read last.
        """
        while True:
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(_READ_S):
                    changes = await self._storage.feed(self.position, PAGE_MAX)
                # Positions have no gaps, so one says that lines before it were pruned.
                if self.missed or (changes and changes[0].position > self.position + 1):
                    await self._start_over(reload)
                    continue
                await apply(changes)
                if changes:
                    self.position = changes[-1].position
                # What was read is as new as the moment at which reading began, however long applying it took.
                self._read_at = began
                self.tampered = ""
                self._wake()
                if len(changes) < PAGE_MAX:
                    await self._storage.wait(self.position, _POLL_S)
            except Tampered as error:
                if not self.tampered:
                    log.critical("rows_tampered_with", error=error.message)
                self.tampered = error.message
                await self._clock.sleep(_POLL_S)
            except (StorageError, BrokerError, TimeoutError) as error:
                log.warning("feed_not_read", error=str(error) or f"no answer within {_READ_S:g} s")
                await self._clock.sleep(_RETRY_S)

    async def _start_over(self, reload: Reload) -> None:
        """Go on from the newest position, once all that was known up to it has been read again."""
        if not self.missed:
            log.error("feed_missed", position=self.position)
        self.missed = True
        newest = await self._storage.position()
        await reload()
        self.position = newest
        self.missed = False
        log.info("feed_caught_up", position=newest)

    async def caught_up(self, timeout_s: float = 2.0) -> None:
        """Return when everything committed before this call is applied here. Unavailable: not within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                target = await self._storage.position()
                if target > self.position:
                    await self._reached(target)
        except (TimeoutError, StorageError):
            raise Unavailable("the change is durable, but this replica has not applied it yet") from None

    async def _reached(self, target: int) -> None:
        waiter = (target, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        for _ in range(len(self._waiters)):
            target, reached = self._waiters.popleft()
            if target > self.position and not reached.done():
                self._waiters.append((target, reached))
            elif not reached.done():
                reached.set_result(None)
