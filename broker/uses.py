"""When workers last used their grants, and admins their credentials: noted in memory, written down once a minute.

Noting costs one entry of a dictionary, so it may be done for every lease. What this replica noted and has not written
is lost with its process: a crash costs the uses of a minute, and a lease that lives on notes its grant again when it is
renewed. Nothing is decided by these rows but what an operator asks to be shown, or pruned.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from broker.clock import Clock
from storage.errors import Conflict, Damaged, StorageError
from storage.port import Commit, Storage
from storage.records import UseRecord

log = structlog.get_logger()

FLUSH_S: Final = 60.0
"""How long a use may stay in memory alone."""
NOTED_MAX: Final = 262_144
"""Uses of different grants, or of one by different workers, in memory; a further one is not noted before they are
written, which is at once."""
SYSTEM: Final = ("system", "")
"""The key of the row that says since when uses are kept."""
_LOOK_S: Final = 1.0
_BATCH: Final = 500
_TRIES: Final = 3
_WRITE_S: Final = 5.0
"""Longest time for reading and writing one batch."""

_Use = tuple[str, str]
"""An actor, and a grant or nothing."""


class Uses:
    """What this replica has seen used. `run` owns the writing."""

    def __init__(self, *, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._noted: dict[_Use, tuple[float, str]] = {}
        self._turn = asyncio.Lock()

    def note(self, actor: str, grant: str, token: str, mono: float) -> None:
        """The actor used the grant ("" for none) to lease the token at this monotonic instant."""
        noted = self._noted
        if len(noted) < NOTED_MAX or (actor, grant) in noted:
            noted[actor, grant] = (mono, token)

    async def run(self) -> None:
        """Write down what is noted, every minute, until cancelled."""
        flush_at = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= flush_at or len(self._noted) >= NOTED_MAX:
                await self.flush()
                flush_at = self._clock.monotonic() + FLUSH_S
            await self._clock.sleep(_LOOK_S)

    async def flush(self) -> None:
        """Write down what is noted. What storage does not take is noted still, and said in the log; what stands on
        record unreadable is let go.
        """
        async with self._turn:
            noted, self._noted = self._noted, {}
            noted[SYSTEM] = (self._clock.monotonic(), "")
            uses = list(noted)
            batches = [uses[start : start + _BATCH] for start in reversed(range(0, len(uses), _BATCH))]
            while batches:
                batch = batches.pop()
                try:
                    async with asyncio.timeout(_WRITE_S):
                        await self._write({use: noted[use] for use in batch})
                except Damaged as error:
                    # A row that cannot be read must not keep the others from being written.
                    half = len(batch) // 2
                    if half:
                        batches += [batch[half:], batch[:half]]
                    else:
                        log.error("use_unreadable", error=str(error))  # noqa: TRY400 - a row's fault, and no bug
                except (StorageError, TimeoutError) as error:
                    left = [*batch, *(use for later in reversed(batches) for use in later)]
                    for use in left:
                        if len(self._noted) < NOTED_MAX:
                            self._noted.setdefault(use, noted[use])
                    log.warning("uses_not_written", uses=len(left), error=str(error))
                    return

    async def _write(self, noted: dict[_Use, tuple[float, str]]) -> None:
        """One batch: rows that are there move forward only, but for those of a clock that was ahead.

        Conflict: others wrote the same rows each time. Damaged: one of them cannot be read.
        """
        now, mono = self._clock.now(), self._clock.monotonic()
        for left in reversed(range(_TRIES)):
            rows = await self._storage.get_many(UseRecord, list(noted))
            inserts: list[UseRecord] = []
            updates: list[UseRecord] = []
            for (actor, grant), (used, token) in noted.items():
                at, row = now - timedelta(seconds=mono - used), rows.get((actor, grant))
                if row is None:
                    inserts.append(UseRecord(actor=actor, grant=grant, first_at=at, last_at=at, last_token=token))
                elif row.last_at < at or row.last_at > now:
                    first = min(row.first_at, at)
                    after = {"rev": row.rev + 1, "first_at": first, "last_at": at, "last_token": token}
                    updates.append(msgspec.structs.replace(row, **after))
            try:
                if inserts or updates:
                    await self._storage.commit(Commit(inserts=inserts, updates=updates))
            except Conflict:
                if not left:
                    raise
            else:
                return

    async def since(self) -> datetime | None:
        """Since when uses are kept; None: they are not yet. Raises what storage raises."""
        row = await self._storage.get(UseRecord, SYSTEM)
        return None if row is None else row.first_at
