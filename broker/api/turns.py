"""Operations that do much: how many run at once, so that whoever asks for them again and again stops nobody's work.

Serving workers needs the same disk and the same process. Who may ask at all is `gate`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from broker.errors import RateLimited

WAIT_S: Final = 10.0
"""Longest wait for a turn."""
RETRY_S: Final = 1.0


class Room(NamedTuple):
    """at_once: how many run. waiting: how many more may wait. each: how many of one admin run or wait."""

    at_once: int
    waiting: int
    each: int


class Turn(StrEnum):
    """What operations take turns: the ones of a kind with each other."""

    SEARCH = "searches"
    COPY = "exports and backups"
    VERIFY = "verifications"
    REWRAP = "rewraps"


ROOM: Final[Mapping[Turn, Room]] = MappingProxyType(
    {
        Turn.SEARCH: Room(at_once=1, waiting=32, each=4),
        Turn.COPY: Room(at_once=2, waiting=0, each=1),
        Turn.VERIFY: Room(at_once=1, waiting=4, each=1),
        Turn.REWRAP: Room(at_once=1, waiting=4, each=1),
    }
)


class Turns:
    """Who runs and who waits."""

    def __init__(self) -> None:
        self._running = {turn: asyncio.Semaphore(room.at_once) for turn, room in ROOM.items()}
        self._here: dict[Turn, Counter[str]] = {turn: Counter() for turn in ROOM}

    @asynccontextmanager
    async def taken(self, turn: Turn | None, admin: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the context ends; at once where none is needed.

        RateLimited: too many run or wait, of this admin or of all, or none ended within `WAIT_S`.
        """
        if turn is None:
            yield
            return
        room, here = ROOM[turn], self._here[turn]
        if here[admin] >= room.each or here.total() >= room.at_once + room.waiting:
            raise _too_many(turn, room)
        here[admin] += 1
        try:
            running = self._running[turn]
            try:
                async with asyncio.timeout(WAIT_S):
                    await running.acquire()
            except TimeoutError:
                raise _too_many(turn, room) from None
            try:
                yield
            finally:
                running.release()
        finally:
            here[admin] -= 1
            if not here[admin]:
                del here[admin]


def _too_many(turn: Turn, room: Room) -> RateLimited:
    return RateLimited(
        f"too many {turn.value} at once: {room.at_once} run, and {room.each} of one admin may run or wait; retry later",
        retry_after_s=RETRY_S,
    )
