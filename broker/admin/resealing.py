"""Seal values anew under the active data key of their keyring, so that the data keys before it can be destroyed.

A version stays what it is: same value, number and stage, another sealed form. No token changes, so nobody is told of a
new version, and leases and what workers acknowledged stay as they are; replicas only forget sealed rows that they hold.
Nothing is remembered between calls: the rows that are left are those that name another data key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from broker.admin.keys import KeyAdmin
from broker.admin.plan import Plan, carry_out
from broker.admin.sealing import Sealer, relies_on
from broker.admin.stored import Stored
from broker.audit.entries import KeyChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError, Unavailable
from broker.vault.errors import KeyDenied
from storage.port import Page
from storage.records import VersionRecord

RESEAL_MAX: Final = 500
"""Most rows of one call; they go into one commit."""
RATE_PER_S: Final = 200
"""Values a second, unless the caller says otherwise: enough for a million in an hour and a half, too few to be felt."""
RATE_PER_S_MAX: Final = 10_000
CALL_S: Final = 10.0
"""After so long a call commits what it has sealed."""
COUNTED_MAX: Final = 20_000
"""So many rows that are left are counted at most."""


class Place(NamedTuple):
    """Where a walk has come to: the row of this version, under this data key."""

    data_key: str
    token: str
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NotResealed:
    """A version that stays sealed as it is, and why."""

    place: Place
    error: BrokerError


@dataclass(frozen=True, kw_only=True, slots=True)
class Resealed:
    """What one call did.

    released: destroyed versions that name no data key any more. remaining: rows of this keyring that still name another
    data key than the active one, those that failed included; counted_all: whether this is the number, or the least that
    it is. next: go on behind this row; None: the walk is at its end.
    """

    values: int
    released: int
    failed: tuple[NotResealed, ...]
    remaining: int
    counted_all: bool
    next: Place | None


class Resealer:
    """Walks the versions of a keyring, one bounded commit a call, no faster than it is told."""

    def __init__(self, *, authority: Authority, stored: Stored, keys: KeyAdmin, sealer: Sealer, clock: Clock) -> None:
        self._authority = authority
        self._stored = stored
        self._keys = keys
        self._sealer = sealer
        self._clock = clock
        self._free_at = clock.monotonic()

    async def reseal(self, keyring: str, *, after: Place | None, limit: int, rate_per_s: int, actor: str) -> Resealed:
        """Reseal at most `limit` versions behind `after`, and at most what one second has room for at this rate.

        Waits first, until the values of earlier calls have had their time. A version that cannot be opened is left as
        it is, and told. NotFound: no such keyring. Unavailable: a KMS or storage does not serve now; go on later from
        the same place.
        """
        self._keys.keyring(keyring)
        await self._clock.sleep(self._free_at - self._clock.monotonic())
        began = self._clock.monotonic()
        page = await self._page(keyring, after, min(limit, rate_per_s))
        fresh, failed, rest = await self._sealed_anew(page.records, began)
        values, released = await self._commit(keyring, fresh, actor)
        self._free_at = max(self._free_at, began) + values / rate_per_s
        last = page.records[len(page.records) - rest - 1] if page.records else None
        remaining, counted_all = await self._left(keyring)
        return Resealed(
            values=values,
            released=released,
            failed=tuple(failed),
            remaining=remaining,
            counted_all=counted_all,
            next=None if last is None or (page.next is None and not rest) else _place(last),
        )

    async def _page(self, keyring: str, after: Place | None, limit: int) -> Page[VersionRecord]:
        """Rows under the first data key that has some left behind `after`; `next` is set if there may be others."""
        former = self._former(keyring)
        for data_key in former:
            if after is not None and data_key < after.data_key:
                continue
            behind = after if after is not None and data_key == after.data_key else None
            page = await self._stored.select(
                VersionRecord, index="data_key", prefix=(data_key,), after=behind, limit=limit
            )
            if page.records:
                more = page.next is not None or data_key != former[-1]
                return Page(records=page.records, next=_place(page.records[-1]) if more else None)
        return Page(records=[], next=None)

    async def _sealed_anew(
        self, rows: Sequence[VersionRecord], began: float
    ) -> tuple[list[VersionRecord], list[NotResealed], int]:
        """The next revision of each row, those that cannot be opened, and how many of the last were not looked at."""
        fresh: list[VersionRecord] = []
        failed: list[NotResealed] = []
        for at, row in enumerate(rows):
            if fresh and self._clock.monotonic() - began > CALL_S:
                return fresh, failed, len(rows) - at
            try:
                fresh.append(await self._next(row))
            except KeyDenied as error:
                failed.append(NotResealed(place=_place(row), error=error))
            except Unavailable:
                if not fresh:
                    raise
                return fresh, failed, len(rows) - at
            except BrokerError as error:
                failed.append(NotResealed(place=_place(row), error=error))
            await asyncio.sleep(0)  # opening and sealing take the event loop's time, which is the workers' first
        return fresh, failed, 0

    async def _next(self, row: VersionRecord) -> VersionRecord:
        self._authority.verify(row)
        if row.stage == "destroyed":
            return msgspec.structs.replace(row, rev=row.rev + 1, data_key="", mac=b"")
        sealed, _ = await self._sealer.reseal(row)
        return msgspec.structs.replace(
            row, rev=row.rev + 1, data_key=sealed.data_key, fmt=sealed.fmt, sealed=sealed.blob, mac=b""
        )

    async def _commit(self, keyring: str, fresh: Sequence[VersionRecord], actor: str) -> tuple[int, int]:
        """Replace the rows that are still as they were read; how many values were resealed, and rows released.

        Those that somebody changed meanwhile, and all if the keyring was rotated, are left for the next walk.
        """

        async def decide() -> Plan[tuple[int, int]]:
            ring = self._keys.keyring(keyring)
            stored = await self._stored.get_many(VersionRecord, [row.key for row in fresh])
            still = [
                row
                for row in fresh
                if row.data_key in {"", ring.active_data_key}
                and (found := stored.get(row.key)) is not None
                and found.rev == row.rev - 1
            ]
            values = sum(row.stage != "destroyed" for row in still)
            entry = KeyChanged(
                at=self._clock.now(),
                actor=actor,
                keyring=keyring,
                change="resealed",
                data_key=stored[still[0].key].data_key if still else "",
                values=values,
            )
            return Plan(
                result=(values, len(still) - values),
                entries=(entry,) if values else (),
                updates=tuple(still),
                expects=(relies_on(ring),) if values else (),
                announce=tuple(("version", row.key) for row in still if row.stage == "current"),
            )

        return await carry_out(self._authority, decide)

    async def _left(self, keyring: str) -> tuple[int, bool]:
        left = 0
        for data_key in self._former(keyring):
            left += await self._stored.count(
                VersionRecord, index="data_key", prefix=(data_key,), limit=COUNTED_MAX - left
            )
            if left >= COUNTED_MAX:
                return left, False
        return left, True

    def _former(self, keyring: str) -> list[str]:
        """The data keys of the keyring that seal no more and still open, in order."""
        return sorted(
            record.id for record in self._authority.data_keys if record.keyring == keyring and record.state == "open"
        )


def _place(row: VersionRecord) -> Place:
    return Place(row.data_key, row.token, row.version)
