"""Tell the replica that drives rollouts what the workers of this one said. Deciding is `rollout_driver`'s.

Only while a rollout runs: its count, whenever that changed, at most twice a second. What is counted, `tallying` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from broker.clock import Clock
from broker.errors import BrokerError
from broker.leases.context import Context
from broker.leases.listing import list_leases
from broker.remarks import Remarks
from broker.rotation.tallying import LOST_S, Gone, complaint, has_answered, takes_part, tally
from storage.errors import Conflict, StorageError
from storage.port import Commit, Delete, Storage
from storage.records import LeaseRecord, RolloutRecord, RolloutTallyRecord
from storage.records.rotation import LeaseName
from storage.table import Key, Record

log = structlog.get_logger()

EVERY_S: Final = 0.5
_LOAD: Final = 20
"""Counting takes one part in so many of the time: with very many sessions it is done less often."""
REMEMBERED_MAX: Final = 10_000
"""Leases of one rollout that this replica remembers as failed; more than that has long taken it back."""
BACK_S: Final = LOST_S
"""How long after its start a replica says nothing of rollouts that began before: its workers are on their way back."""
NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Watched:
    """What this replica remembers of one rollout. told: its row, as written last."""

    id: str
    failed: dict[str, LeaseName] = field(default_factory=dict)
    gone_at: dict[str, datetime] = field(default_factory=dict)
    told: RolloutTallyRecord | None = None


class Tallies:
    """Counts for every rollout that runs, and writes the counts down. running: how many there are."""

    def __init__(self, *, storage: Storage, context: Context, verify: Callable[[Record], None], clock: Clock) -> None:
        """verify: returns only of a row that this cluster wrote."""
        self._storage = storage
        self._context = context
        self._verify = verify
        self._clock = clock
        self._remarks = Remarks(clock)
        self._began_at = clock.now()
        self._began = clock.monotonic()
        self._watched: dict[str, _Watched] = {}
        self._woken = asyncio.Event()
        self._woken.set()  # rollouts may have begun before this process did

    @property
    def told(self) -> list[RolloutTallyRecord]:
        """What was written last of each rollout that runs."""
        return [watched.told for watched in self._watched.values() if watched.told is not None]

    @property
    def running(self) -> int:
        """How many rollouts run, as far as this replica knows."""
        return len(self._watched)

    def wake(self, tokens: Iterable[str] = ()) -> None:
        """Rollouts of these tokens changed, or nobody knows which. From now on no connection of theirs ends unseen."""
        for token in tokens:
            self._context.holdings.missed.setdefault(token, {})
        self._woken.set()

    async def run(self) -> None:
        """Count while rollouts run, until cancelled. What cannot be written now is written later."""
        while True:
            await self._woken.wait()
            began = self._clock.monotonic()
            try:
                # Cleared first: who begins a rollout meanwhile wakes this again.
                self._woken.clear()
                if await self._tell_all():
                    self._woken.set()
            except (StorageError, BrokerError) as error:
                self._remarks.warn("rollouts_not_told", error)
                self._woken.set()
            took_s = self._clock.monotonic() - began
            await self._clock.sleep(max(EVERY_S, _LOAD * took_s))

    async def _tell_all(self) -> bool:
        """Write what changed; whether a rollout runs."""
        missed = self._context.holdings.missed
        before = set(missed)
        rollouts = {row.token: row for row in await self._storage.due(RolloutRecord, "due_at", NEVER)}
        for token in self._watched.keys() - rollouts.keys():
            await self._forget(token)
        # What began to be watched while this was read is not over.
        for token in before - rollouts.keys():
            del missed[token]
        for rollout in rollouts.values():
            missed.setdefault(rollout.token, {})
            try:
                self._verify(rollout)
                await self._follow(rollout)
            except (StorageError, BrokerError) as error:
                self._remarks.warn("rollout_not_told", error, token=rollout.token)
        return bool(rollouts)

    async def _follow(self, rollout: RolloutRecord) -> None:
        watched = self._watched.get(rollout.token)
        if watched is None or watched.id != rollout.id:
            watched = await self._watch(rollout)
        if rollout.started_at >= self._began_at or self._clock.monotonic() >= self._began + BACK_S:
            await self._tell(rollout, watched)

    async def _watch(self, rollout: RolloutRecord) -> _Watched:
        """Begin to count. Of one that began before this process did, take over what its workers had not answered."""
        told = await self._storage.get(RolloutTallyRecord, (rollout.token, self._context.instance))
        if rollout.started_at < self._began_at:
            missed = self._context.holdings.missed[rollout.token]
            after: Key | None = None
            while True:
                page = await list_leases(self._storage, self._clock, token=rollout.token, after=after)
                missed.update((row.lease, row) for row in page.records if row.instance == self._context.instance)
                after = page.next
                if after is None:
                    break
        watched = self._watched[rollout.token] = _Watched(id=rollout.id, told=told)
        return watched

    async def _tell(self, rollout: RolloutRecord, watched: _Watched) -> None:
        now = self._clock.now()
        gone = await self._gone(rollout, watched, now)
        held = self._context.holdings.of_token(rollout.token)
        self._note_failed(rollout, watched, (each.record for each in held))
        counted = tally(rollout, instance=self._context.instance, held=held, gone=gone, failed=watched.failed, now=now)
        before = watched.told
        if before is not None:
            counted = msgspec.structs.replace(counted, rev=before.rev + 1)
            if msgspec.structs.replace(counted, rev=before.rev, seen_at=before.seen_at) == before:
                return
        try:
            await self._storage.commit(Commit(updates=[counted]) if before else Commit(inserts=[counted]))
        except Conflict:
            # Written although nobody could say so, or swept away: the next turn goes on from what is there.
            watched.told = await self._storage.get(RolloutTallyRecord, counted.key)
        else:
            watched.told = counted

    async def _gone(self, rollout: RolloutRecord, watched: _Watched, now: datetime) -> list[Gone]:
        """Leases that were held here and whose workers are away before they answered."""
        missed, by_lease = self._context.holdings.missed[rollout.token], self._context.holdings.by_lease
        self._note_failed(rollout, watched, missed.values())
        settled = [
            lease
            for lease, record in missed.items()
            if lease in by_lease
            or record.version != rollout.version
            or not takes_part(rollout, record)
            or has_answered(rollout, record)
        ]
        for lease in settled:
            del missed[lease]
        rows = await self._context.read_leases(list(missed))
        self._note_failed(rollout, watched, rows.values())
        gone: list[Gone] = []
        for lease, record in list(missed.items()):
            row = rows.get(lease)
            if row is None or _is_settled(rollout, row, record, now):
                missed.pop(lease, None)
                watched.gone_at.pop(lease, None)
            else:
                gone.append(Gone(record=row, seen_at=watched.gone_at.setdefault(lease, now)))
        return gone

    def _note_failed(self, rollout: RolloutRecord, watched: _Watched, records: Iterable[LeaseRecord]) -> None:
        """Remember who could not use the version, whatever he says later."""
        for record in records:
            if record.lease in watched.failed or len(watched.failed) >= REMEMBERED_MAX:
                continue
            why = complaint(rollout, record) if takes_part(rollout, record) else ""
            if why:
                watched.failed[record.lease] = LeaseName(lease=record.lease, worker=record.worker, why=why)

    async def _forget(self, token: str) -> None:
        """The rollout is over: so is the count."""
        told = self._watched[token].told
        if told is not None:
            try:
                await self._storage.commit(Commit(deletes=[Delete(RolloutTallyRecord, told.key, told.rev)]))
            except Conflict:
                log.info("rollout_count_left", token=token)
        del self._watched[token]


def _is_settled(rollout: RolloutRecord, row: LeaseRecord, before: LeaseRecord, now: datetime) -> bool:
    """Whether a lease that is held here no more is waited for no more: it ended, was answered, or is another's now."""
    return (
        row.state != "live"
        or row.expires_at <= now
        or row.session != before.session
        or row.version != rollout.version
        or has_answered(rollout, row)
    )
