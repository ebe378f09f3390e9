"""Work that one replica does for all: whose it is, and the proof of that for what is written under it.

A claim lasts as long as the life of its holder, which `roll` judges, so nothing is written while it does not move.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from broker.clock import Clock
from broker.replicas.roll import Roll
from storage.errors import Conflict
from storage.port import Commit, Expect, Storage
from storage.records import ClaimRecord, ReplicaRecord

log = structlog.get_logger()

UPKEEP: Final = "upkeep"
"""Ending leases that nobody holds, closing the sessions of dead replicas, forgetting what was kept long enough."""
ROTATION: Final = "rotation"
"""Bringing rotations and rollouts forward."""


class Claim:
    """One claim as this replica knows it."""

    def __init__(self, *, name: str, storage: Storage, roll: Roll, clock: Clock) -> None:
        self._name = name
        self._storage = storage
        self._roll = roll
        self._clock = clock
        self._held: ClaimRecord | None = None
        self._turn = asyncio.Lock()

    @property
    def held(self) -> bool:
        """Whether this replica had it when it was last asked for."""
        return self._held is not None

    async def ask(self) -> Expect | None:
        """What a commit under this claim relies on; None: the work is not this replica's. Raises what storage raises.

        It takes what belongs to nobody alive. A replica whose clock is off gives it away, for the work is done by
        instants.
        """
        async with self._turn:
            before, self._held = self._held, await self._found()
            if (before is None) != (self._held is None):
                log.info("claim_lost" if self._held is None else "claim_taken", claim=self._name)
            return None if self._held is None else Expect(ClaimRecord, self._held.key, self._held.rev)

    async def _found(self) -> ClaimRecord | None:
        """The row, if it is this replica's now."""
        own = self._roll.record
        found = await self._storage.get(ClaimRecord, (self._name,))
        mine = found is not None and found.life == own.life
        if self._roll.skew.trouble:
            if found is not None and mine:
                await self._move(found, instance="", life="")
            return None
        if mine or not await self._vacant(found):
            return found if mine else None
        return await self._move(found, instance=own.instance, life=own.life)

    async def _vacant(self, found: ClaimRecord | None) -> bool:
        if found is None or not found.life:
            return True
        holder = await self._storage.get(ReplicaRecord, (found.instance,))
        return holder is None or holder.life != found.life or holder.ended_at is not None

    async def _move(self, found: ClaimRecord | None, *, instance: str, life: str) -> ClaimRecord | None:
        """The row as it is now; None: another replica was quicker."""
        now = self._clock.now()
        try:
            if found is None:
                record = ClaimRecord(rev=1, name=self._name, instance=instance, life=life, since=now)
                await self._storage.commit(Commit(inserts=[record]))
            else:
                record = msgspec.structs.replace(found, rev=found.rev + 1, instance=instance, life=life, since=now)
                await self._storage.commit(Commit(updates=[record]))
        except Conflict:
            return None
        return record
