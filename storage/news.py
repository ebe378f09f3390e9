"""Waiting for the feed to grow, for adapters: woken in-process at once, by polling for what others write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

POLL_S = 0.25
"""How often a waiter looks for changes that another handle or process announced."""


class News:
    """The newest feed position known here, and who waits for a newer one."""

    def __init__(self) -> None:
        self._newest = 0
        self._hints = 0
        self._changed = asyncio.Event()

    def announce(self, position: int) -> None:
        """Wake every waiter that has seen less than `position`."""
        if position > self._newest:
            self._newest = position
            self._changed.set()
            self._changed = asyncio.Event()

    def hint(self, position: int) -> None:
        """Wake who waits now, once. Remembered is nothing: whoever says so may not be able to know."""
        if position > self._newest:
            self._hints += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait(self, after: int, timeout_s: float, position: Callable[[], Awaitable[int]]) -> None:
        """Return once a position behind `after` is known, from here or by asking `position`, or after `timeout_s`.

        A hint makes it return as well.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._newest <= after:
                    changed, hints = self._changed, self._hints
                    self.announce(await position())
                    if self._newest > after:
                        return
                    try:
                        async with asyncio.timeout(POLL_S):
                            await changed.wait()
                    except TimeoutError:
                        continue
                    if hints != self._hints:
                        return
        except TimeoutError:
            return
