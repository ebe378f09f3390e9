"""What happens to a leased token, as an app is told of it.

Handlers run in `delivery`; the value itself is read from the lease, where it is always the current one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from tokenbroker_client.errors import BrokerError


class ChangeKind(StrEnum):
    """What a change is about."""

    ROTATED = "rotated"
    """The token has another version; `lease.value` is it."""

    RESTORED = "restored"
    """The lease had run out and there is another one; `lease.value` can be read again."""

    REVOKED = "revoked"
    """The broker took the lease back, or does not grant it any more; `lease.value` is wiped."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of a leased token. It holds no value.

    `version` is the current one, or the last one after `REVOKED`. `previous_valid_s` tells for how long the version
    before still works, where the broker knows. `reason` is the operator's, after `REVOKED`.
    """

    kind: ChangeKind
    token: str
    version: int
    previous_valid_s: float | None = None
    reason: str = ""


class ChangeFeed:
    """The latest change of one token, for any number of readers. Older changes are not kept."""

    def __init__(self) -> None:
        self._serial = 0
        self._latest: Change | None = None
        self._failure: BrokerError | None = None
        self._moved = asyncio.Event()

    @property
    def serial(self) -> int:
        """How many changes there were."""
        return self._serial

    def publish(self, change: Change) -> None:
        """Make this the latest change and wake the readers."""
        self._serial += 1
        self._latest = change
        self._moved.set()

    def fail(self, why: BrokerError) -> None:
        """Raise `why` in every reader, once it has read the latest change."""
        self._failure = why
        self._moved.set()

    async def after(self, serial: int) -> tuple[int, Change]:
        """Wait until there is a change later than `serial`, and return the latest with its number.

        Raises what `fail` was given.
        """
        while self._latest is None or self._serial <= serial:
            if self._failure is not None:
                raise self._failure.fresh()
            self._moved.clear()
            await self._moved.wait()
        return self._serial, self._latest


Handler = Callable[[Change], Awaitable[None] | None]
"""An app's own reaction to a change: a function or a coroutine function."""


class Listener:
    """Who is told of a token's changes: one lease block's feed and handlers."""

    def __init__(self) -> None:
        self.feed = ChangeFeed()
        self.handlers: list[Handler] = []


class Changes(AsyncIterator[Change]):
    """The changes of a lease from the moment this was made.

    A reader that is slower than the changes gets the latest only. Ends after `REVOKED`; raises LeaseReleased when the
    lease's block is left, and the SessionRefused that ended the session.
    """

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self._seen = feed.serial
        self._ended = False

    async def __anext__(self) -> Change:
        if self._ended:
            raise StopAsyncIteration
        self._seen, change = await self._feed.after(self._seen)
        self._ended = change.kind is ChangeKind.REVOKED
        return change
