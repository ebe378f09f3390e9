"""Bring every rollout that runs forward, on the one replica that has the claim of rotation.

Each change is one commit that relies on the claim, so a replica that dies or stands still at any line leaves a rollout
that another one goes on with. What comes next is `rollouts`' to say; nothing of it is kept in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from broker.admin.plan import Plan, carry_out, joined
from broker.admin.token_book import TokenBook
from broker.admin.tokens import TokenAdmin
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError, Gone, NotFound
from broker.remarks import Remarks
from broker.replicas.claim import Claim
from broker.replicas.roll import Roll
from broker.rotation.rollout_plans import SYSTEM, finished, noted, promoted, taken_back, widened
from broker.rotation.rollouts import NAMED_MAX, PATIENCE, Next, Said, gather, judge, why_taken_back
from broker.rotation.tallies import NEVER
from broker.rotation.unconfirmed import unconfirmed
from storage.errors import Conflict, StorageError
from storage.port import Commit, Delete, Storage
from storage.records import RolloutRecord, RolloutTallyRecord, TokenRecord
from storage.records.rotation import LeaseName, RolloutState

log = structlog.get_logger()

EVERY_S: Final = 0.5
_IDLE_S: Final = 1.0
"""Without the claim: how often it is looked whether its holder has died."""
_LOAD: Final = 10
"""Looking takes one part in so many of the time."""
_WALK_S: Final = 5.0
"""So long at least between two walks over the leases on record."""


class RolloutDriver:
    """Judges each step and carries out what follows.

    ended: rollouts that ended by this replica's hand. looked: how often it has looked at those that run.
    """

    def __init__(
        self,
        *,
        authority: Authority,
        book: TokenBook,
        tokens: TokenAdmin,
        storage: Storage,
        claim: Claim,
        roll: Roll,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._book = book
        self._tokens = tokens
        self._storage = storage
        self._claim = claim
        self._roll = roll
        self._clock = clock
        self._remarks = Remarks(clock)
        self._walk_at: dict[str, float] = {}
        self._untold: dict[str, dict[tuple[int, str], float]] = {}
        self._woken = asyncio.Event()
        self._woken.set()  # rollouts may have begun before this process did
        self.ended: Counter[RolloutState] = Counter()
        self.looked = 0

    def wake(self) -> None:
        """A rollout may have begun, or changed."""
        self._woken.set()

    async def run(self) -> None:
        """Drive rollouts while there are any, until cancelled. What fails is tried again."""
        while True:
            await self._woken.wait()
            began = self._clock.monotonic()
            pause_s = EVERY_S
            try:
                self._woken.clear()
                rows = await self._storage.due(RolloutRecord, "due_at", NEVER)
                if rows:
                    self._woken.set()
                    if await self._claim.ask() is None:
                        self._untold.clear()
                        pause_s = _IDLE_S
                    else:
                        await self._drive(rows)
                        self.looked += 1
            except (StorageError, BrokerError) as error:
                self._remarks.warn("rollouts_postponed", error)
                self._woken.set()
            await self._clock.sleep(max(pause_s, _LOAD * (self._clock.monotonic() - began)))

    async def _drive(self, rows: list[RolloutRecord]) -> None:
        """One bad row must not hold up the other rollouts."""
        ids = {row.id for row in rows}
        self._walk_at = {rollout: at for rollout, at in self._walk_at.items() if rollout in ids}
        self._untold = {rollout: since for rollout, since in self._untold.items() if rollout in ids}
        for row in rows:
            try:
                self._authority.verify(row)
                said = await self._said(row)
                unanswered = await self._unanswered(row, said) if row.state == "confirming" else None
                await self._step(row, said, unanswered)
            except (StorageError, BrokerError) as error:
                self._remarks.warn("rollout_postponed", error, token=row.token)

    async def _said(self, row: RolloutRecord) -> Said:
        page = await self._storage.select(RolloutTallyRecord, prefix=(row.token,))
        said, now = gather(row, page.records, self._alive()), self._clock.monotonic()
        # By when this replica saw it: one that has just entered, or come back, is not late for what began long ago.
        before = self._untold.get(row.id, {})
        since = {(row.step, instance): before.get((row.step, instance), now) for instance in said.untold}
        self._untold[row.id] = since
        return replace(said, untold_s=now - min(since.values(), default=now))

    def _alive(self) -> set[str]:
        return {replica.instance for replica in self._roll.known if replica.ended_at is None}

    async def _unanswered(self, row: RolloutRecord, said: Said) -> tuple[LeaseName, ...] | None:
        """Who has not confirmed, on record; None: nobody looked, as connected ones may still answer, or just now.

        Looking costs what the leases of a month cost, so it is done seldom. A replica that says nothing of its workers
        is not waited for longer than they are: what they said is on record.
        """
        over = self._is_over(row)
        answers = said.waiting or (said.untold and said.untold_s < PATIENCE * row.wait_s)
        if not over and answers:
            return None
        began = self._clock.monotonic()
        if not over and began < self._walk_at.get(row.id, began):
            return None
        found = await unconfirmed(self._storage, self._clock, token=row.token, version=row.version)
        now = self._clock.monotonic()
        self._walk_at[row.id] = now + max(_WALK_S, 2 * _LOAD * (now - began))
        return found

    def _is_over(self, row: RolloutRecord) -> bool:
        """Whether the time is over that who has not confirmed is waited for at most."""
        return row.retire != "confirmed" and self._clock.now() >= row.step_at + timedelta(seconds=row.deadline_s)

    async def _step(self, row: RolloutRecord, said: Said, unanswered: tuple[LeaseName, ...] | None) -> None:
        async def decide() -> Plan[RolloutRecord]:
            claimed = await self._claim.ask()
            found = await self._book.rollout(row.token)
            if claimed is None or found is None or (found.id, found.state, found.step) != (row.id, row.state, row.step):
                return Plan(result=row, entries=())
            plan = await self._next(found, said, unanswered)
            return replace(plan, expects=(*plan.expects, claimed))

        after = await carry_out(self._authority, decide)
        if after.state != row.state or after.step != row.step:
            log.info("rollout_moved", token=row.token, state=after.state, step=after.step, reason=after.reason)
        if after.ended_at is not None and row.ended_at is None:
            self.ended[after.state] += 1
            await self._sweep(row)

    async def _sweep(self, row: RolloutRecord) -> None:
        """Delete what replicas left that are dead; each living one deletes its own."""
        alive = self._alive()
        for tally in (await self._storage.select(RolloutTallyRecord, prefix=(row.token,))).records:
            if tally.instance not in alive:
                with contextlib.suppress(Conflict):
                    await self._storage.commit(Commit(deletes=[Delete(RolloutTallyRecord, tally.key, tally.rev)]))

    async def _next(
        self, rollout: RolloutRecord, said: Said, unanswered: tuple[LeaseName, ...] | None
    ) -> Plan[RolloutRecord]:
        try:
            token = await self._book.token(rollout.token)
        except NotFound:
            return self._finished(rollout, said, (), "the token is deleted")
        if rollout.state == "confirming":
            return await self._confirming(token, rollout, said, unanswered)
        if token.rollout != rollout.version:
            return self._finished(rollout, said, (), "the token was put back to another state")
        if token.disabled:
            # Nobody holds it, which says nothing of the version. It is watched anew once somebody may hold it again.
            return noted(rollout, failed=said.named_failed, answered_at=None)
        return await self._running(token, rollout, said)

    async def _running(self, token: TokenRecord, rollout: RolloutRecord, said: Said) -> Plan[RolloutRecord]:
        now = self._clock.now()
        match judge(rollout, said, now):
            case Next.WAIT:
                return noted(rollout, failed=said.named_failed)
            case Next.ANSWERED:
                return noted(rollout, failed=said.named_failed, answered_at=now)
            case Next.WIDEN:
                return widened(token, rollout, said, now=now)
            case Next.PROMOTE:
                live = await self._book.stepping_down(token)
                target = await self._book.version(token.name, rollout.version)
                return promoted(token, live, target, rollout, now=now)
            case Next.TAKE_BACK:
                target = await self._book.version(token.name, rollout.version)
                reason = why_taken_back(rollout, said)
                return taken_back(token, target, rollout, said, reason=reason, actor=SYSTEM, now=now)

    async def _confirming(
        self, token: TokenRecord, rollout: RolloutRecord, said: Said, unanswered: tuple[LeaseName, ...] | None
    ) -> Plan[RolloutRecord]:
        if token.current != rollout.version:
            return self._finished(rollout, said, unanswered or (), f"version {token.current} became current meanwhile")
        if unanswered is None:
            return noted(rollout, failed=said.named_failed)
        if unanswered and not self._is_over(rollout):
            return noted(rollout, failed=said.named_failed, unanswered=unanswered[:NAMED_MAX])
        done = self._finished(rollout, said, unanswered, "")
        if rollout.retire == "never" or token.previous != rollout.before:
            return done
        try:
            retired = await self._tokens.retirement(token.name, rollout.before, actor=SYSTEM)
        except (Gone, NotFound):
            return done
        return joined(done.result, done, retired)

    def _finished(
        self, rollout: RolloutRecord, said: Said, unanswered: tuple[LeaseName, ...], reason: str
    ) -> Plan[RolloutRecord]:
        return finished(rollout, said, unanswered, reason=reason, actor=SYSTEM, now=self._clock.now())
