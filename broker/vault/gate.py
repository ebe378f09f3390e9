"""The way to one KMS key: paced, limited, given up when it does not answer, and counted for its health.

Caching, and what an answer means for cached keys, do not live here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from broker.clock import Clock
from broker.vault.breaker import Breaker, BreakerState
from broker.vault.counters import CallTimes
from broker.vault.pacing import Pace
from broker.vault.settings import VaultSettings
from kms.errors import KmsError, Unavailable
from kms.guard import GuardedKms
from kms.port import Caller, Kms, Wrap

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class KmsHealth:
    """One KMS key as this process knows it. answered_s_ago: None until it first answered.

    failures: unanswered calls in a row. last_error: the code of the last call's error, "" after success. times: how
    long calls took that were made, answered or not, by operation; waiting for a place is left out.
    """

    kms_key: str
    state: BreakerState
    failures: int
    answered_s_ago: float | None
    last_error: str
    times: Mapping[str, CallTimes] = field(repr=False)

    def well(self, *, lately_s: float = math.inf) -> bool:
        """Whether the last call that was made went well, not longer ago than that."""
        return not self.last_error and self.answered_s_ago is not None and self.answered_s_ago <= lately_s


class KmsGate:
    """Calls one KMS key within the bounds of the settings. Raises the errors of `kms.errors` and no other.

    Unavailable is also: the breaker is open; no place in line within queue_s; no answer within call_s. An answer
    that nobody understands is Denied or Corrupt (`kms.guard`).
    slots: the calls in flight, shared by all gates. Cancelling a call gives its place and its probe back.
    """

    def __init__(
        self,
        *,
        kms: Kms,
        settings: VaultSettings,
        slots: asyncio.Semaphore,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        self._kms = GuardedKms(adapter=kms, uri=kms.uri, deadline_s=settings.call_s)
        self._checked = GuardedKms(adapter=kms, uri=kms.uri, deadline_s=settings.check_s)
        self._queue_s = settings.queue_s
        self._slots = slots
        self._clock = clock
        self._pace = Pace(rate_per_s=settings.rate_per_s, burst=settings.burst)
        self._breaker = Breaker(
            failures_max=settings.breaker_failures,
            open_s=settings.breaker_open_s,
            open_max_s=settings.breaker_open_max_s,
            jitter=jitter,
        )
        self._answered_at: float | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._left = False
        self._last_error = ""
        self._times = {"wrap": CallTimes(), "unwrap": CallTimes(), "check": CallTimes()}

    @property
    def uri(self) -> str:
        """The key URI."""
        return self._kms.uri

    @property
    def wraps_only(self) -> bool:
        """As `GuardedKms.wraps_only`."""
        return self._kms.wraps_only

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As `Kms.wrap`."""
        return await self._call("wrap", lambda: self._kms.wrap(key, context))

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As `Kms.unwrap`."""
        return await self._call("unwrap", lambda: self._kms.unwrap(wrap, context, caller))

    async def check(self) -> None:
        """As `Kms.check`, within check_s."""
        await self._call("check", self._checked.check)

    async def leave(self) -> None:
        """Refuse further calls, and return when none is under way."""
        self._left = True
        await self._idle.wait()

    def health(self) -> KmsHealth:
        """What is known of this key now, without asking it."""
        answered_at = self._answered_at
        return KmsHealth(
            kms_key=self.uri,
            state=self._breaker.state,
            failures=self._breaker.failures,
            answered_s_ago=None if answered_at is None else self._clock.monotonic() - answered_at,
            last_error=self._last_error,
            times=self._times,
        )

    async def _call(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        if self._breaker.is_shut(self._clock.monotonic()):
            raise self._left_alone()
        async with self._under_way(), self._place():
            if not self._breaker.admit(self._clock.monotonic()):
                raise self._left_alone()
            started = self._clock.monotonic()
            try:
                answer = await call()
            except Unavailable as error:
                self._breaker.failed(self._clock.monotonic())
                self._last_error = error.code
                raise
            except KmsError as error:
                self._answered(error.code)
                raise
            except BaseException:
                self._breaker.abandoned()
                raise
            finally:
                self._times[operation].add(self._clock.monotonic() - started)
            self._answered("")
            return answer

    def _answered(self, last_error: str) -> None:
        self._breaker.answered()
        self._answered_at = self._clock.monotonic()
        self._last_error = last_error

    def _left_alone(self) -> Unavailable:
        return Unavailable("it has not answered lately and is left alone for a moment", kms_key=self.uri)

    @asynccontextmanager
    async def _under_way(self) -> AsyncIterator[None]:
        """Counts the call, so that `leave` waits for it."""
        if self._left:
            raise Unavailable("it is no longer configured", kms_key=self.uri)
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A turn at the pace, then one of the shared places, both within queue_s."""
        wait_s = self._pace.take(self._clock.monotonic())
        if wait_s > self._queue_s:
            self._pace.give_back()
            raise Unavailable("more calls are asked for than its rate allows", kms_key=self.uri)
        try:
            if wait_s > 0:
                await self._clock.sleep(wait_s)
        except BaseException:
            self._pace.give_back()
            raise
        try:
            async with asyncio.timeout(self._queue_s):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable("too many KMS calls are under way", kms_key=self.uri) from None
        try:
            yield
        finally:
            self._slots.release()
