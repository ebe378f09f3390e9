"""End upstream what was made for leases that are over: again and again until it is gone, and in nobody's way.

One replica does it for all. Each step is on record before upstream is asked, so a kill -9 at any line leads to another
attempt, and asking upstream twice does no more than once. What is due is found by its time alone: rows whose lease has
ended (`rows.Endings`), rows that no lease ever got, and, whatever else may have been forgotten, each row whose lease
is over at the latest by now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from broker.audit.entries import IssuedEnded, IssuedFailed
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError, Conflict, Tampered, Unavailable
from broker.leases.issued.makers import Makers
from broker.leases.issued.rows import as_version, to_end
from broker.remarks import Remarks
from broker.replicas.claim import Claim
from broker.secret import Secret
from broker.upstream.errors import EndsByItself, UpstreamError
from broker.upstream.port import NOTE_CHARS_MAX
from broker.vault.vault import Vault
from storage.errors import StorageError
from storage.port import COUNT_MAX, PAGE_MAX, Delete, Expect, Storage
from storage.records import IssuedRecord
from tokenbroker_client.backoff import Backoff

log = structlog.get_logger()

LOST: Final = "lost"
"""Why there is no value, where nobody told: whoever had it made was gone, or late, before its lease was granted."""
UNMAKING: Final = "unmaking"
"""The claim: whose work this is."""
LOOK_S: Final = 0.5
"""How often it is looked what is due."""
END_S: Final = 10.0
"""Longest time of one attempt upstream."""
AT_ONCE_MAX: Final = 4
"""Attempts of one token at a time."""
REPLICA_AT_ONCE_MAX: Final = 128
"""The same of all tokens: upstreams that hang, 32 of them, do not keep others from being asked."""
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 600.0
"""The pause behind attempt n is 2^n s at most, and 10 minutes at most, with full jitter. No attempt is the last one."""
MEASURE_S: Final = 5.0
"""How often it is counted what waits."""


class UnmakeCounts:
    """For metrics. failed: attempts, by error code. lost: values that no lease ever got (`LOST`).

    waiting: values that are to be ended, as this replica counted them while it does the work. oldest_s: how long the
    one has waited that has longest, among a thousand of them and without those that nobody can end before their time.
    Both are 0 while another replica does the work.
    """

    __slots__ = ("ended", "failed", "lost", "oldest_s", "waiting")

    def __init__(self) -> None:
        self.ended = 0
        self.failed: Counter[str] = Counter()
        self.lost = 0
        self.waiting = 0
        self.oldest_s = 0.0


class Unmaking:
    """The loop, and the attempts that it has under way."""

    def __init__(
        self,
        *,
        storage: Storage,
        authority: Authority,
        vault: Vault,
        makers: Makers,
        claim: Claim,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        """jitter: a number from 0 to 1, another one each time."""
        self._storage = storage
        self._authority = authority
        self._vault = vault
        self._makers = makers
        self._claim = claim
        self._clock = clock
        self._jitter = jitter
        self._remarks = Remarks(clock)
        self._busy: dict[str, str] = {}
        self._measure_at = clock.monotonic()
        self.counts = UnmakeCounts()

    async def run(self) -> None:
        """End what is due until cancelled; attempts under way then are made again by whoever has the claim next."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self._look(tasks)
                except (StorageError, BrokerError) as error:
                    log.warning("unmaking_postponed", error=str(error))
                await self._clock.sleep(LOOK_S)

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        if not len(self._authority.issuers):
            return  # an issuer stays while anything of it is on record
        claimed = await self._claim.ask()
        if claimed is None:
            self.counts.waiting, self.counts.oldest_s = 0, 0.0
            return
        await self._measure()
        now = self._clock.now()
        rows = await self._storage.due(IssuedRecord, "due_at", now)
        under_way = Counter(self._busy.values())
        crowded: list[IssuedRecord] = []
        for row in rows:
            if row.lease in self._busy:
                continue
            if under_way[row.token] >= AT_ONCE_MAX or len(self._busy) >= REPLICA_AT_ONCE_MAX:
                crowded.append(row)
                continue
            # Before it takes a place: what another hand wrote stays due, and must not stand in the way of the rest.
            if not self._genuine(row):
                continue
            under_way[row.token] += 1
            self._busy[row.lease] = row.token
            tasks.create_task(self._attempt(row, claimed))
        if len(rows) == PAGE_MAX:
            await self._stand_back(crowded, claimed, now)

    async def _stand_back(self, rows: Sequence[IssuedRecord], claimed: Expect, now: datetime) -> None:
        """Postpone what has no turn yet, where there is so much of it that nobody else's would be found behind it."""
        later = [
            msgspec.structs.replace(row, rev=row.rev + 1, due_at=now + timedelta(seconds=END_S * (1 + self._jitter())))
            for row in rows
            if self._genuine(row)
        ]
        await self._authority.commit((), updates=later, expects=(claimed,))

    async def _measure(self) -> None:
        if self._clock.monotonic() < self._measure_at:
            return
        self._measure_at = self._clock.monotonic() + MEASURE_S
        now = self._clock.now()
        waiting = await self._storage.count(IssuedRecord, index="state", prefix=("ending",), limit=COUNT_MAX)
        page = await self._storage.select(IssuedRecord, index="state", prefix=("ending",))
        late = [row.ended_at for row in page.records if row.ended_at is not None and not _lapses(row, now)]
        since = min(late, default=now)
        self.counts.waiting, self.counts.oldest_s = waiting, (now - since).total_seconds()

    async def _attempt(self, row: IssuedRecord, claimed: Expect) -> None:
        """One attempt, from its record to its outcome. What fails here beside upstream is found again by its time."""
        try:
            await self._end(await self._begun(row, claimed))
        except Conflict:
            pass  # its lease was granted at the last moment, it ended otherwise, or the work is another replica's now
        except (StorageError, BrokerError) as error:
            log.warning("unmaking_postponed", lease=row.lease, token=row.token, error=str(error))
        finally:
            del self._busy[row.lease]

    async def _begun(self, row: IssuedRecord, claimed: Expect) -> IssuedRecord:
        """The row with this attempt on record, which nobody else makes while it may last."""
        now = self._clock.now()
        begun = msgspec.structs.replace(
            to_end(row, now=now, due_at=now + timedelta(seconds=2 * END_S)), attempt=row.attempt + 1
        )
        lost = row.state == "making"
        entry = IssuedFailed(
            at=now, actor="system", lease=row.lease, token=row.token, issuer=row.issuer, step="make", code=LOST
        )
        await self._authority.commit((entry,) if lost else (), updates=(begun,), expects=(claimed,))
        if lost:
            self.counts.lost += 1
            log.warning("value_lost", lease=row.lease, token=row.token, issuer=row.issuer)
        return begun

    async def _end(self, row: IssuedRecord) -> None:
        try:
            async with asyncio.timeout(END_S):
                await self._revoke(row)
        except EndsByItself as error:
            await self._postponed(row, error, due_at=error.at)
        except TimeoutError:
            await self._failed(row, "upstream_unreachable", f"upstream did not answer within {END_S:g} s")
        except BrokerError as error:
            await self._failed(row, error.code, error.message)
        else:
            entry = IssuedEnded(
                at=self._clock.now(),
                actor="system",
                lease=row.lease,
                token=row.token,
                issuer=row.issuer,
                attempts=row.attempt,
            )
            await self._authority.commit((entry,), deletes=(Delete(IssuedRecord, row.key, row.rev),))
            self.counts.ended += 1

    async def _revoke(self, row: IssuedRecord) -> None:
        policy = self._authority.issuers.get((row.token,))
        if policy is None:
            raise Unavailable("how it was made is not on record any more")
        value = await self._value(row)
        try:
            async with self._makers.at_work(policy) as maker:
                await maker.issuer.revoke(maker.wanted(lease=row.lease, worker=row.worker), row.handle, value)
        finally:
            if value is not None:
                value.wipe()

    async def _value(self, row: IssuedRecord) -> Secret | None:
        """What was made; None: nobody knows it, or ever will. Unavailable: not now."""
        if not row.sealed:
            return None
        try:
            return await self._vault.open(as_version(row))
        except Unavailable:
            raise
        except BrokerError as error:
            log.warning("issued_value_lost", lease=row.lease, token=row.token, error=error.message)
            return None

    async def _failed(self, row: IssuedRecord, code: str, message: str) -> None:
        """Have it tried again later. The first failure of a value goes on record, the others into the log."""
        self.counts.failed[code] += 1
        log.warning("unmaking_failed", lease=row.lease, token=row.token, attempt=row.attempt, error=message)
        now = self._clock.now()
        pause_s = Backoff(first_s=PAUSE_S, most_s=PAUSE_S_MAX, jitter=self._jitter).pause_s(row.attempt)
        entry = IssuedFailed(
            at=now, actor="system", lease=row.lease, token=row.token, issuer=row.issuer, step="end", code=code
        )
        after = msgspec.structs.replace(
            row, rev=row.rev + 1, due_at=now + timedelta(seconds=pause_s), error=message[:NOTE_CHARS_MAX]
        )
        await self._authority.commit((entry,) if row.attempt == 1 else (), updates=(after,))

    async def _postponed(self, row: IssuedRecord, error: UpstreamError, *, due_at: datetime) -> None:
        """Wait for what nobody can hasten. It is looked at again then; before that, nothing is asked."""
        due_at = max(due_at, self._clock.now() + timedelta(seconds=LOOK_S))
        after = msgspec.structs.replace(row, rev=row.rev + 1, due_at=due_at, error=error.message[:NOTE_CHARS_MAX])
        await self._authority.commit((), updates=(after,))

    def _genuine(self, row: IssuedRecord) -> bool:
        """Whether this cluster wrote it. Nobody acts upon what another hand wrote: its handle may be anything."""
        try:
            self._authority.verify(row)
        except Tampered as error:
            self._remarks.alarm("issued_tampered", error, lease=row.lease, token=row.token)
            return False
        return True


def _lapses(row: IssuedRecord, now: datetime) -> bool:
    """Whether it is only waited for: nobody can end it before its time (`EndsByItself`)."""
    return row.ends_at is not None and row.due_at is not None and now < row.ends_at <= row.due_at
