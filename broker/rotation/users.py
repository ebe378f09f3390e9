"""Who still uses a version, as far as workers have told. Asked seldom: no index leads from a token to its leases.

A walk reads what was granted in the last month, whoever's it is. So there is one at a time in a process, whatever the
number of rotations that wait, and those that may be put off together take no more than a tenth of the time.
"""

from __future__ import annotations

import asyncio
from typing import Final

from broker.admin.ports import LeaseDesk
from broker.clock import Clock
from storage.port import PAGE_MAX
from storage.records import LeaseRecord
from storage.records.rotation import LeaseName
from storage.table import Key

NAMED_MAX: Final = 50
"""Most leases that are named of those that still use a version."""
LOAD: Final = 10
"""A walk that may be put off comes so many times later as the one before took."""


class Users:
    """Walks leases. Raises what `LeaseDesk.list_leases` raises."""

    def __init__(self, *, leases: LeaseDesk, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self._walking = asyncio.Lock()
        self._again_at = clock.monotonic()

    async def any(self, token: str, version: int) -> bool | None:
        """Whether a live lease of the current version uses this one; None: nobody looked, ask again later."""
        if self._walking.locked() or self._clock.monotonic() < self._again_at:
            return None
        return bool(await self._found(token, version, 1))

    async def named(self, token: str, version: int) -> tuple[LeaseName, ...]:
        """Those leases, the first 50, however long it takes.

        A worker uses the version that was given it, until it has said that it applied another one. Those that lease the
        previous version are not asked: they lose it when it is retired, and know that.
        """
        return await self._found(token, version, NAMED_MAX)

    async def _found(self, token: str, version: int, most: int) -> tuple[LeaseName, ...]:
        async with self._walking:
            began = self._clock.monotonic()
            try:
                return await self._walk(token, version, most)
            finally:
                now = self._clock.monotonic()
                self._again_at = now + LOAD * (now - began)

    async def _walk(self, token: str, version: int, most: int) -> tuple[LeaseName, ...]:
        users: list[LeaseName] = []
        after: Key | None = None
        while len(users) < most:
            page = await self._leases.list_leases(
                token=token, worker=None, at=None, include_ended=False, after=after, limit=PAGE_MAX
            )
            users += [
                LeaseName(lease=each.lease, worker=each.worker, why=_why(each))
                for each in page.records
                if each.stage == "current" and _uses(each, version)
            ]
            after = page.next
            if after is None:
                break
        return tuple(users[:most])


def _uses(lease: LeaseRecord, version: int) -> bool:
    if lease.version == version:
        return True
    waits = lease.pushed_at is not None and lease.acked_version != lease.version
    return waits and any(past.version == version for past in lease.past)


def _why(lease: LeaseRecord) -> str:
    return "could not apply the new version" if lease.ack_failed else ""
