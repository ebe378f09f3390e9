"""Drive every rotation that is due: which, when, and how often again after a failure. The steps are in `steps`.

One replica drives, by its claim; each write of it is fenced by that. A token's rotation is one task, so a rotator that
hangs holds up no other token until `SLOTS` of them hang at once, and each for the time that its policy gives a call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from broker.admin.plan import Plan
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError, Tampered
from broker.replicas.claim import Claim
from broker.rotation.book import RotationBook
from broker.rotation.errors import NotTheDriver
from broker.rotation.hand import Hand, open_hand
from broker.rotation.progress import Progress
from broker.rotation.rotators import told
from broker.rotation.steps import Steps
from storage.errors import StorageError
from storage.port import PAGE_MAX, Storage
from storage.records import RotationPolicyRecord, RotationRecord
from storage.table import Key
from tokenbroker_client.backoff import Backoff

log = structlog.get_logger("tokenbroker.rotation")

LOOK_S: Final = 1.0
"""How often it is looked for what is due."""
COUNT_S: Final = 30.0
"""How often it is counted how many are stuck."""
SLOTS: Final = 16
"""Most rotations that are worked on at a time; the others wait in the order in which they came due."""
ASIDE_S: Final = 60.0
"""How long a rotation is passed over whose rows somebody else has written."""
RETRY_S: Final = 5.0
RETRY_S_MAX: Final = 3600.0
"""The pause after a failure is drawn from 1 s up to `RETRY_S`, doubled for each failure before it, to at most this."""


class Conductor:
    """The loop. counts: attempts at steps, as `done` or `failed`. stuck: rotations whose last attempt failed."""

    def __init__(
        self,
        *,
        storage: Storage,
        authority: Authority,
        rotations: RotationBook,
        steps: Steps,
        progress: Progress,
        claim: Claim,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        """jitter: draws from 0.0 to 1.0."""
        self._storage = storage
        self._authority = authority
        self._rotations = rotations
        self._steps = steps
        self._progress = progress
        self._claim = claim
        self._clock = clock
        self._jitter = jitter
        self._running: dict[str, asyncio.Task[None]] = {}
        self._aside: dict[str, float] = {}
        self._count_at = clock.monotonic()
        self.counts: Counter[str] = Counter({"done": 0, "failed": 0})
        self.stuck = 0

    @property
    def running(self) -> int:
        """How many rotations are worked on now."""
        return len(self._running)

    async def run(self) -> None:
        """Drive until cancelled; what is under way is cancelled with it, and goes on wherever the claim goes."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self._look(tasks)
                except (StorageError, BrokerError) as error:
                    log.warning("rotations_postponed", error=str(error))
                await self._clock.sleep(LOOK_S)

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Begin what is due, if this replica drives. Nobody takes the claim while there is nothing to do."""
        rows = await self._storage.due(RotationRecord, "due_at", self._clock.now())
        now = self._clock.monotonic()
        self._aside = {token: until for token, until in self._aside.items() if now < until}
        due = [row for row in rows if row.token not in self._aside]
        if not due and not self._running and not self._claim.held:
            return
        if await self._claim.ask() is None:
            self.stuck = 0
            for task in self._running.values():
                task.cancel()
            return
        for row in due:
            if row.token not in self._running and len(self._running) < SLOTS:
                self._running[row.token] = tasks.create_task(self._drive(row.token))
        if self._clock.monotonic() >= self._count_at:
            self._count_at = self._clock.monotonic() + COUNT_S
            self.stuck = await self._count_stuck()

    async def _drive(self, token: str) -> None:
        """Take one rotation as far as it can go now."""
        try:
            while await self._advance(token):
                pass
        except NotTheDriver:
            log.info("rotation_left_to_another_replica", token=token)
        except Tampered as error:
            # It stays due, and foremost: where it took its turn each time, it would take it from the others.
            self._aside[token] = self._clock.monotonic() + ASIDE_S
            log.error("rotation_tampered", token=token, error=error.message)  # noqa: TRY400 - no bug
        except (StorageError, BrokerError) as error:
            log.warning("rotation_postponed", token=token, error=str(error))
        finally:
            del self._running[token]

    async def _advance(self, token: str) -> bool:
        """Make one attempt at one step; False: nothing is due."""
        state = await self._rotations.state(token)
        policy = self._authority.rotation_policies.get((token,))
        # A row without a policy is one that was just made or removed elsewhere: the book will know within a second.
        if state is None or policy is None or state.due_at is None or state.due_at > self._clock.now():
            return False
        async with open_hand() as hand:
            try:
                await self._steps.carry_out(state, policy, hand)
            except NotTheDriver:
                raise
            except BrokerError as error:
                await self._failed(state, policy, error, hand)
            else:
                self.counts["done"] += 1
        return True

    async def _failed(
        self, state: RotationRecord, policy: RotationPolicyRecord, error: BrokerError, hand: Hand
    ) -> None:
        """Write down that an attempt failed, and when the next one is."""
        self.counts["failed"] += 1
        text = told(error, hand.secrets)

        async def after(found: RotationRecord) -> Plan[None]:
            now = self._clock.now()
            again_at = now + timedelta(seconds=self._pause_s(found.attempt))
            failed = msgspec.structs.replace(
                found,
                rev=found.rev + 1,
                attempt=found.attempt + 1,
                due_at=None if found.due_at is None else again_at,
                error=text,
                stuck_since=found.stuck_since or now,
            )
            entry = self._progress.entry(found, "failed", error=error.code)
            return Plan(result=None, entries=(entry,), updates=(failed,))

        await self._progress.write(state, after)
        log.warning(
            "rotation_step_failed",
            token=state.token,
            step=state.step,
            attempt=state.attempt,
            rotator=policy.rotator,
            error=text,
        )

    def _pause_s(self, attempt: int) -> float:
        """Full jitter: as many failures as there are, no two of them come again at the same moment."""
        return max(1.0, Backoff(first_s=RETRY_S, most_s=RETRY_S_MAX, jitter=self._jitter).pause_s(attempt - 1))

    async def _count_stuck(self) -> int:
        stuck = 0
        after: Key | None = None
        while True:
            page = await self._storage.select(RotationRecord, after=after, limit=PAGE_MAX)
            stuck += sum(row.stuck_since is not None for row in page.records)
            after = page.next
            if after is None:
                return stuck
