"""What a rollout does next, for any counts and moments; and how one replica counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from broker.leases.held import Held
from broker.leases.shares import BUCKETS, bucket
from broker.rotation.rollouts import TELL_S, Next, Said, gather, judge, percent, why_taken_back
from broker.rotation.tallying import Gone, complaint, tally
from storage.records import LeaseRecord, RolloutRecord, RolloutTallyRecord
from storage.records.leases import LeaseReport
from storage.records.rotation import LeaseName

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COUNTS = st.integers(0, 400)
LATER = st.floats(0, 1000)


def rollout(**changed: Any) -> RolloutRecord:
    record = RolloutRecord(
        token="t",
        id="r",
        version=2,
        before=1,
        shares=(500, 5000, BUCKETS),
        wait_s=100.0,
        bake_s=5.0,
        abort_above=100,
        retire="confirmed",
        deadline_s=3600.0,
        state="running",
        step=0,
        step_at=NOW,
        started_by="admin:root",
        started_at=NOW,
        due_at=NOW,
    )
    return msgspec.structs.replace(record, **changed)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@st.composite
def said(draw: Any, *, waiting: Any = COUNTS) -> Said:
    counts = {name: draw(COUNTS) for name in ("confirmed", "silent", "lost", "failed")}
    left = draw(waiting)
    return Said(holders=sum(counts.values()) + left, waiting=left, **counts)


@given(said(), LATER, st.integers(0, BUCKETS - 1), st.integers(0, 2))
def test_too_many_that_failed_take_it_back_and_no_fewer(heard: Said, later: float, above: int, step: int) -> None:
    """At any step and moment: more than the share of the holders, not so many."""
    verdict = judge(rollout(abort_above=above, step=step), heard, at(later))
    assert (verdict is Next.TAKE_BACK) is (heard.bad * BUCKETS > above * heard.holders)


@given(said(waiting=st.integers(1, 400)), LATER)
def test_nothing_goes_on_while_somebody_is_waited_for(heard: Said, later: float) -> None:
    """However long ago the others answered."""
    for answered_at in (None, NOW):
        assert judge(rollout(answered_at=answered_at), heard, at(later)) in {Next.WAIT, Next.TAKE_BACK}


@given(st.integers(0, 400), LATER, LATER, st.integers(0, 2))
def test_a_step_that_went_well_is_watched_on_before_the_next(
    confirmed: int, answered: float, later: float, step: int
) -> None:
    """For as long as it was said to be; the last one is followed by the promotion."""
    heard = Said(holders=confirmed, confirmed=confirmed)
    assert judge(rollout(step=step), heard, at(answered)) is Next.ANSWERED
    after = judge(rollout(step=step, answered_at=at(answered)), heard, at(answered + later))
    onward = Next.PROMOTE if step == 2 else Next.WIDEN
    assert after is (onward if at(answered + later) >= at(answered) + timedelta(seconds=5) else Next.WAIT)
    assert judge(rollout(step=step, bake_s=0.0), heard, at(answered)) is onward


@given(said(), LATER)
def test_a_replica_that_says_nothing_holds_it_up_and_then_takes_it_back(heard: Said, later: float) -> None:
    """What is not known is no consent; and nothing waits for ever."""
    heard = Said(holders=heard.holders, confirmed=heard.holders, untold=("two",), untold_s=later)
    over = later >= 2 * rollout().wait_s + TELL_S
    assert judge(rollout(), heard, at(5000)) is (Next.TAKE_BACK if over else Next.WAIT)
    assert "workers of two" in why_taken_back(rollout(), heard)


def told(instance: str, **changed: Any) -> RolloutTallyRecord:
    record = RolloutTallyRecord(
        token="t",
        instance=instance,
        id="r",
        step=0,
        holders=3,
        confirmed=2,
        failed_count=1,
        silent_count=0,
        lost_count=0,
        waiting=0,
        failed=(LeaseName(lease=f"l-{instance}", worker="w", why="failed"),),
        silent=(),
        lost=(),
        seen_at=NOW,
    )
    return msgspec.structs.replace(record, **changed)


def test_only_living_replicas_and_this_step_are_heard() -> None:
    """A dead one's word, one about the step before, and one about another rollout are as if not said."""
    tallies = [told("one"), told("two", step=1), told("three", id="other"), told("dead")]
    heard = gather(rollout(), tallies, {"one", "two", "three"})
    assert (heard.holders, heard.confirmed, heard.failed) == (3, 2, 1)
    assert heard.untold == ("three", "two")


def test_who_failed_stays_counted_when_his_replica_is_gone() -> None:
    """The rollout's own row remembers him, and he is a holder still; nobody is counted twice."""
    before = rollout(failed=(LeaseName(lease="l-dead", worker="w", why="failed"),))
    heard = gather(before, [told("one")], {"one"})
    assert (heard.holders, heard.failed, len(heard.named_failed)) == (4, 2, 2)
    again = gather(rollout(failed=heard.named_failed), [told("one"), told("dead")], {"one", "dead"})
    assert (again.holders, again.failed) == (6, 2)


WORKERS = [f"w-{number}" for number in range(200)]
IN = next(worker for worker in WORKERS if bucket("t", worker, 2) < 500)
OUT = next(worker for worker in WORKERS if bucket("t", worker, 2) >= 500)


def held(worker: str = IN, version: int = 2, **changed: Any) -> Held:
    record = LeaseRecord(
        lease=f"l-{worker}",
        token="t",
        version=version,
        worker=worker,
        session="s",
        instance="one",
        grant="g",
        state="live",
        ttl_s=60,
        granted_at=NOW,
        expires_at=at(60),
        max_expires_at=at(3600),
        due_at=at(60),
    )
    holder: Any = None
    record = msgspec.structs.replace(record, **changed)
    return Held(record=record, holder=holder, expires=60.0, renew_at=30.0, sent=record.version)


def counted(*leases: Held, seconds: float = 0.0, gone: Any = (), failed: Any = None) -> dict[str, int]:
    row = tally(rollout(), instance="one", held=leases, gone=gone, failed=failed or {}, now=at(seconds))
    counts = {"confirmed", "failed_count", "silent_count", "lost_count", "waiting"}
    found = {name: getattr(row, name) for name in counts if getattr(row, name)}
    assert row.holders == sum(found.values()), "each holder is in one count"
    return found


def test_a_holder_is_who_has_part_in_the_step() -> None:
    """Neither workers above the share, nor leases of the previous stage."""
    assert counted(held(OUT), held(OUT, version=1), held(stage="previous", version=1)) == {}
    assert counted(held()) == {"confirmed": 1}


def test_a_pushed_version_is_waited_for_and_then_silent() -> None:
    """From the push on, but from the step on where that was earlier."""
    assert counted(held(pushed_at=NOW), seconds=99) == {"waiting": 1}
    assert counted(held(pushed_at=NOW), seconds=100) == {"silent_count": 1}
    assert counted(held(pushed_at=at(50)), seconds=149) == {"waiting": 1}
    assert counted(held(pushed_at=at(-50)), seconds=99) == {"waiting": 1}
    assert counted(held(version=1), seconds=99) == {"waiting": 1}
    assert counted(held(pushed_at=NOW, acked_at=at(1)), seconds=500) == {"confirmed": 1}


def test_who_is_pushed_again_and_again_has_twice_the_wait() -> None:
    """From when he first had the version, so that nobody who comes and goes holds the step up."""
    assert counted(held(version_at=at(1), pushed_at=at(190)), seconds=200) == {"waiting": 1}
    assert counted(held(version_at=at(1), pushed_at=at(190)), seconds=201) == {"silent_count": 1}


def test_who_comes_back_late_in_a_long_step_has_as_long_as_the_others() -> None:
    """However long all others have answered: he is not silent the moment that he is sent the version."""
    late = held(version_at=at(3000), pushed_at=at(3000))
    assert counted(late, seconds=3099) == {"waiting": 1}
    assert counted(late, seconds=3100) == {"silent_count": 1}


def test_a_push_that_is_written_and_not_sent_is_no_confirmation() -> None:
    """The worker has the value before."""
    behind = held(pushed_at=NOW, acked_at=at(1))
    behind.sent = 1
    assert counted(behind) == {"waiting": 1}


def test_who_is_away_has_a_moment_to_come_back() -> None:
    """Ten seconds, then he is lost."""
    gone = [Gone(record=held(pushed_at=NOW).record, seen_at=NOW)]
    assert counted(gone=gone, seconds=9) == {"waiting": 1}
    assert counted(gone=gone, seconds=10) == {"lost_count": 1}


def test_who_failed_once_is_counted_once_and_as_that() -> None:
    """Whether he confirmed since, or is away."""
    name = LeaseName(lease=f"l-{IN}", worker=IN, why="failed")
    gone = [Gone(record=held().record, seen_at=NOW)]
    assert counted(held(), gone=gone, failed={name.lease: name}, seconds=50) == {"failed_count": 1}


@given(st.sampled_from(["rejected", "rate_limited", "ok"]), st.integers(1, 3), st.floats(-10, 10))
def test_a_rejection_counts_of_this_version_since_it_was_sent(event: str, version: int, later: float) -> None:
    """Not of one before, not one that was told of an earlier time with it, and nothing else that is reported."""
    report = LeaseReport(event=event, at=at(later), version=version)
    record = held(version_at=NOW, report=report).record
    counts = (event, version) == ("rejected", 2) and at(later) >= NOW
    assert complaint(rollout(), record) == ("rejected upstream" if counts else "")


def test_shares_are_shown_as_people_write_them() -> None:
    """Without noise behind the point."""
    assert [percent(parts) for parts in (1, 50, 500, BUCKETS)] == ["0.01%", "0.5%", "5%", "100%"]
