"""What the client knows of one leased token: a state machine without I/O, tasks or timers.

Every handle that an app has on the same token and stage shares one holding, for a broker gives a session one lease per
token and stage. Requests and pushes reach it through `roster`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from tokenbroker_client.changes import Change, ChangeKind, Listener
from tokenbroker_client.errors import LeaseDenied, LeaseExpired, LeaseGone, LeaseReleased, LeaseRevoked
from tokenbroker_client.held_value import HeldValue
from tokenbroker_client.wire import Granted, HeldLease, Report, ReportEvent, Rotated, Stage, decode_value

_CEILING_S: Final = 0.05
"""A lease that ends this close to its ceiling is at it: a broker may leave out a renewal that adds so little."""
_SAID_S: Final = 1.0
"""A report is not repeated sooner: an app may report after each call that it makes."""
_WHOLE: Final = 0.99
"""A renewal that gives this part of the lease's own time is a whole one, rounded somewhere on the way."""


class Holding:
    """One token, its current value, and until when it may be read.

    The value is readable exactly while `elapsed()` is below the lease's end, which is checked at each reading. An end
    is `final` when asking again is for the app to decide: revoked, denied, released.
    """

    def __init__(
        self,
        *,
        token: str,
        elapsed: Callable[[], float],
        turn: asyncio.Lock | None = None,
        stage: Stage = Stage.CURRENT,
    ) -> None:
        self.token = token
        self.stage = stage
        self.users = 0
        self.lease: str | None = None
        self.version = 0
        self.content_type = ""
        self.ttl_asked_s: float | None = None
        self.wait_asked_s: float | None = None
        self.listeners: list[Listener] = []
        # Whoever leases or releases this token takes its turn, across holdings of the same token: a broker that
        # answers a release after a lease, in one batch, would end the lease that was just given.
        self.turn = turn if turn is not None else asyncio.Lock()
        self.regranting = False
        self._elapsed = elapsed
        self._value: HeldValue | None = None
        self._ends_at = 0.0
        self._ceiling_at = math.inf
        self._ttl_s = 0.0
        self._capped = False
        self._last_lease = ""
        self._over: LeaseGone | None = None
        self._reported: Report | None = None
        self._reported_at = 0.0

    @property
    def final(self) -> bool:
        """Whether it is over for good."""
        return self._over is not None and not isinstance(self._over, LeaseExpired)

    @property
    def ran_out(self) -> bool:
        """Whether there was a lease, which is over or lost, and another is to be had."""
        return bool(self._last_lease) and not self.final and (self.lease is None or self.remaining_s <= 0.0)

    @property
    def remaining_s(self) -> float:
        """Seconds for which the value can still be read, if nothing renews the lease; 0.0 when it is over."""
        return 0.0 if self._over is not None else max(0.0, self._ends_at - self._elapsed())

    def read(self) -> bytes:
        """Return the current value. Raises the LeaseGone that says why there is none."""
        if self._over is None and self._elapsed() >= self._ends_at:
            self.expire()
        if self._over is not None:
            raise self._over.fresh()
        return self._value.reveal() if self._value is not None else b""

    def stated(self) -> HeldLease | None:
        """Return what to resume this lease with; None when there is nothing to resume."""
        if self.lease is None or self._over is not None:
            return None
        if self._elapsed() >= self._ends_at:
            self.expire()
            return None
        return HeldLease(lease=self.lease, version=self.version)

    def take(self, granted: Granted, *, since: float) -> Change | None:
        """Hold what was granted; its time counts from `since`. Return the change for an app that held it before."""
        value = decode_value(granted.value, granted.encoding)
        was_held = self._value is not None
        was_over = self._over is not None
        is_renewal = granted.lease == self._last_lease and not was_over
        if not is_renewal:
            # A fresh lease that ends no later than the one before tells that not the lease but the grant is ending.
            self._capped = was_held and not was_over and since + granted.ttl_s <= self._ends_at
        is_same = self._value is not None and granted.version == self.version and self._value.is_same_as(value)
        self._swap(value, granted.version, granted.content_type)
        self.lease = self._last_lease = granted.lease
        self._over = None
        self._ttl_s = max(self._ttl_s, granted.ttl_s) if is_renewal else granted.ttl_s
        self._ends_at = since + granted.ttl_s
        self._ceiling_at = since + granted.max_ttl_s
        if was_over:
            return Change(kind=ChangeKind.RESTORED, token=self.token, version=self.version)
        if was_held and not is_same:
            return Change(kind=ChangeKind.ROTATED, token=self.token, version=self.version)
        return None

    def extend(self, ttl_s: float, *, since: float) -> None:
        """Give the lease `ttl_s` seconds from `since`. One that is over stays over."""
        if self._over is None:
            self._ends_at = since + ttl_s
            self._capped = self._capped and ttl_s < self._ttl_s

    def renew(self, ttl_s: float, *, since: float) -> None:
        """As `extend`, by a renewal: one that gives less than the lease's own time shows where its ceiling is."""
        self.extend(ttl_s, since=since)
        if ttl_s < self._ttl_s * _WHOLE:
            self._ceiling_at = min(self._ceiling_at, self._ends_at)

    @property
    def ends_for_good(self) -> bool:
        """Whether only another lease, and no renewal, will give more time than there is."""
        return self._over is None and not self._capped and self._ends_at >= self._ceiling_at - _CEILING_S

    @property
    def wants_another(self) -> bool:
        """Whether it is time for that: half of the lease is over."""
        return self.lease is not None and self.ends_for_good and self.remaining_s <= self._ttl_s / 2

    def rotate(self, rotated: Rotated) -> Change | None:
        """Swap the value in. Return None when it is the one that is held, or the lease is over."""
        value = decode_value(rotated.value, rotated.encoding)
        if self._over is not None:
            return None
        if rotated.version == self.version and self._value is not None and self._value.is_same_as(value):
            return None
        self._swap(value, rotated.version, rotated.content_type)
        return Change(
            kind=ChangeKind.ROTATED,
            token=self.token,
            version=self.version,
            previous_valid_s=rotated.previous_valid_s,
        )

    def reporting(self, event: ReportEvent, retry_after_s: float | None, *, now: float) -> Report | None:
        """What to report of the version that is held; None: the lease is over, or the same was said just now."""
        if self.lease is None or self._over is not None:
            return None
        report = Report(lease=self.lease, event=event, version=self.version, retry_after_s=retry_after_s)
        if report == self._reported and now - self._reported_at < _SAID_S:
            return None
        self._reported, self._reported_at = report, now
        return report

    def expire(self) -> None:
        """Wipe the value of a lease that ran out; a fresh one may follow."""
        self._end(LeaseExpired(f"the lease of {self.token} ran out before the broker could renew it"))

    def revoke(self, reason: str) -> Change:
        """Wipe the value of a lease that the broker took back."""
        text = f"the lease of {self.token} was revoked"
        self._end(LeaseRevoked(f"{text}: {reason}" if reason else text))
        return self._revoked(reason)

    def deny(self, why: str) -> Change:
        """Wipe the value of a lease that ended and is not granted again."""
        self._end(LeaseDenied(f"{self.token} is not granted again: {why}"))
        return self._revoked(why)

    def release(self) -> None:
        """Wipe the value of a lease that nobody uses any more."""
        self._end(LeaseReleased(f"the lease of {self.token} was released when its block was left"))

    def _revoked(self, reason: str) -> Change:
        return Change(kind=ChangeKind.REVOKED, token=self.token, version=self.version, reason=reason)

    def _end(self, why: LeaseGone) -> None:
        if not self.final:
            self._over = why
        if self._value is not None:
            self._value.wipe()

    def _swap(self, value: bytes, version: int, content_type: str) -> None:
        if self._value is not None:
            self._value.wipe()
        self._value = HeldValue(value)
        self.version = version
        self.content_type = content_type
