"""What a rollout does next, from what its holders said: pure. Acting is `rollout_driver`'s, rows are `rollout_plans`'.

A step gives the version to a share of the workers. When all who have it answered, and nothing bad came while it was
watched on, the next one follows. When too many of them failed, all is taken back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from broker.admin.errors import RolloutRefused
from broker.leases.shares import BUCKETS
from storage.records import RolloutRecord, RolloutTallyRecord
from storage.records.rotation import LeaseName, RetireWhen

NAMED_MAX: Final = 200
"""Leases that a list names; beyond, they are counted."""
SHARES_MAX: Final = 20
SPAN_S_MAX: Final = 31 * 86_400.0
TELL_S: Final = 30.0
"""How much longer than for answers a replica is waited for, that lives and says nothing of its workers."""
PATIENCE: Final = 2
"""So many times the wait, whoever is pushed a version again and again has to answer, from when he first had it on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRollout:
    """What somebody wants. The fields are `RolloutRecord`'s."""

    version: int
    shares: Sequence[int] = (BUCKETS,)
    wait_s: float = 120.0
    bake_s: float = 5.0
    abort_above: int = 100
    retire: RetireWhen = "confirmed"
    deadline_s: float = 3600.0

    def check(self) -> None:
        """Accept its steps and times. RolloutRefused: which one is out of bounds."""
        shares = list(self.shares)
        if not 1 <= len(shares) <= SHARES_MAX or shares != sorted(set(shares)) or shares[0] < 1:
            raise RolloutRefused(
                f"steps: 1 to {SHARES_MAX} shares of the workers, each larger than the one before, from 0.01% on"
            )
        if shares[-1] != BUCKETS:
            raise RolloutRefused(f"steps: the last share is {percent(shares[-1])}; end with 100%")
        if not 0 <= self.abort_above < BUCKETS:
            raise RolloutRefused("abort on failed: from 0%, for none at all, to less than 100%")
        for name, seconds, least in (
            ("wait", self.wait_s, 1),
            ("bake", self.bake_s, 0),
            ("deadline", self.deadline_s, 1),
        ):
            if not least <= seconds <= SPAN_S_MAX:
                raise RolloutRefused(f"{name}: from {least} s to {SPAN_S_MAX / 86_400:g} days, not {seconds:.0f} s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the holders of a step said, on all replicas together. Counts are whole, lists cut off.

    untold: replicas that live and have not told of this step yet. untold_s: for how long whoever judges has seen the
    slowest of them say nothing. Each holder is in one of the other counts.
    """

    holders: int = 0
    confirmed: int = 0
    silent: int = 0
    lost: int = 0
    waiting: int = 0
    failed: int = 0
    named_failed: tuple[LeaseName, ...] = ()
    named_silent: tuple[LeaseName, ...] = ()
    named_lost: tuple[LeaseName, ...] = ()
    untold: tuple[str, ...] = ()
    untold_s: float = 0.0

    @property
    def bad(self) -> int:
        """How many count against the rollout."""
        return self.failed + self.silent + self.lost


class Next(Enum):
    """What to do about a step. ANSWERED: note that everybody has, and watch on."""

    WAIT = "wait"
    ANSWERED = "answered"
    WIDEN = "widen"
    PROMOTE = "promote"
    TAKE_BACK = "take_back"


def gather(rollout: RolloutRecord, tallies: Iterable[RolloutTallyRecord], alive: Collection[str]) -> Said:
    """What is known of the step that the rollout is at. Tallies of other steps and of dead replicas count nothing.

    Who failed once stays counted, also when his lease is in nobody's hands any more.
    """
    told = [
        tally for tally in tallies if (tally.id, tally.step) == (rollout.id, rollout.step) and tally.instance in alive
    ]
    failed = {name.lease: name for name in rollout.failed}
    for tally in told:
        failed.update((name.lease, name) for name in tally.failed)
    seen = sum(tally.failed_count for tally in told)
    counted = max(seen, len(failed))
    return Said(
        holders=sum(tally.holders for tally in told) + counted - seen,
        confirmed=sum(tally.confirmed for tally in told),
        silent=sum(tally.silent_count for tally in told),
        lost=sum(tally.lost_count for tally in told),
        waiting=sum(tally.waiting for tally in told),
        failed=counted,
        named_failed=tuple(failed.values())[:NAMED_MAX],
        named_silent=tuple(name for tally in told for name in tally.silent)[:NAMED_MAX],
        named_lost=tuple(name for tally in told for name in tally.lost)[:NAMED_MAX],
        untold=tuple(sorted(set(alive) - {tally.instance for tally in told})),
    )


def judge(rollout: RolloutRecord, said: Said, now: datetime) -> Next:
    """What to do about the step of a running rollout."""
    if said.untold:
        return Next.TAKE_BACK if said.untold_s >= PATIENCE * rollout.wait_s + TELL_S else Next.WAIT
    if said.bad * BUCKETS > rollout.abort_above * said.holders:
        return Next.TAKE_BACK
    if said.waiting:
        return Next.WAIT
    if rollout.answered_at is None and rollout.bake_s:
        return Next.ANSWERED
    if rollout.answered_at is not None and now < rollout.answered_at + timedelta(seconds=rollout.bake_s):
        return Next.WAIT
    return Next.PROMOTE if rollout.step == len(rollout.shares) - 1 else Next.WIDEN


def why_taken_back(rollout: RolloutRecord, said: Said) -> str:
    """In one sentence what was wrong with the step."""
    if said.untold:
        return f"nothing was heard of the workers of {', '.join(said.untold[:5])}"
    counts = ((said.failed, "failed"), (said.silent, "did not answer"), (said.lost, "lost their connection"))
    bad = ", ".join(f"{count} {what}" for count, what in counts if count)
    share, above = percent(rollout.shares[rollout.step]), percent(rollout.abort_above)
    return f"of {said.holders} holders at {share}: {bad}; more than {above} is too many"


def percent(parts: int) -> str:
    """Parts of 10 000 as people read them."""
    return f"{parts * 100 / BUCKETS:g}%"
