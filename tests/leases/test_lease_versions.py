"""What a lease remembers of its versions, and what an acknowledgement says of which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given as each
from hypothesis import strategies as st

from broker.leases.versions import PAST_MAX, applied, failed, given, is_confirmed
from storage.records import LeaseRecord
from storage.records.leases import PastVersion

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def lease(version: int = 1) -> LeaseRecord:
    return LeaseRecord(
        lease="l",
        token="t",
        version=version,
        worker="w",
        session="s",
        instance="i",
        grant="g",
        state="live",
        ttl_s=60,
        granted_at=NOW,
        expires_at=at(60),
        max_expires_at=at(3600),
        due_at=at(60),
    )


def said(record: LeaseRecord | None) -> LeaseRecord:
    assert record is not None, "it said something new"
    return record


def test_a_lease_that_was_granted_waits_for_no_acknowledgement() -> None:
    """Its worker asked for the value, so it counts as confirmed until something is pushed."""
    assert is_confirmed(lease())
    assert not is_confirmed(given(lease(), 2, now=at(1), pushed=True))
    assert is_confirmed(given(lease(), 2, now=at(1), pushed=False))


def test_a_push_is_confirmed_by_applied_and_by_nothing_else() -> None:
    """Neither a failure nor what is said of the version before confirms it."""
    pushed = given(lease(), 2, now=at(1), pushed=True)
    assert is_confirmed(said(applied(pushed, 2, now=at(2))))
    assert not is_confirmed(said(failed(pushed, 2, "no room", now=at(9))))
    assert not is_confirmed(said(applied(pushed, 1, now=at(2))))


def test_the_past_tells_each_version_since_when_and_when_it_was_applied() -> None:
    """From the grant on, oldest first."""
    record = said(applied(given(lease(), 2, now=at(1), pushed=True), 2, now=at(2)))
    record = given(given(record, 3, now=at(3), pushed=True), 4, now=at(4), pushed=False)
    assert record.past == (
        PastVersion(version=1, since=NOW),
        PastVersion(version=2, since=at(1), acked_at=at(2)),
        PastVersion(version=3, since=at(3)),
    )
    assert (record.version, record.version_at, record.pushed_at, record.acked_at) == (4, at(4), None, None)


def test_the_same_version_sent_again_is_no_past() -> None:
    """It waits for an acknowledgement again where it was pushed, and for none where it was asked for."""
    applied_once = said(applied(given(lease(), 2, now=at(1), pushed=True), 2, now=at(2)))
    again = given(applied_once, 2, now=at(3), pushed=True)
    assert (again.past, again.version_at, is_confirmed(again)) == (applied_once.past, at(1), False)
    assert is_confirmed(given(again, 2, now=at(4), pushed=False))


@each(st.lists(st.integers(1, 5), max_size=2 * PAST_MAX))
def test_the_past_is_bounded_and_in_order(versions: list[int]) -> None:
    """However often it changes, the latest changes are there, and two neighbours are never the same version."""
    record = lease()
    for number, version in enumerate(versions, 1):
        record = given(record, version, now=at(number), pushed=True)
    assert len(record.past) <= PAST_MAX
    told = [*record.past, PastVersion(version=record.version, since=record.version_at or record.granted_at)]
    assert [each.since for each in told] == sorted(each.since for each in told)
    assert all(one.version != other.version for one, other in pairwise(told))


def test_after_going_back_the_word_on_the_lower_version_counts() -> None:
    """What was applied last is what the worker uses, whatever its number."""
    ahead = said(applied(given(lease(), 2, now=at(1), pushed=True), 2, now=at(2)))
    back = said(applied(given(ahead, 1, now=at(3), pushed=True), 1, now=at(4)))
    assert (back.acked_version, is_confirmed(back)) == (1, True)


def test_a_late_word_on_a_version_before_changes_nothing_after_the_last() -> None:
    """Before it, it tells what the worker uses until then, and enters the past."""
    moved = given(given(lease(), 2, now=at(1), pushed=True), 3, now=at(2), pushed=True)
    late = said(applied(moved, 2, now=at(3)))
    assert (late.acked_version, late.past[-1].acked_at, is_confirmed(late)) == (2, at(3), False)
    done = said(applied(late, 3, now=at(4)))
    assert done.acked_version == 3
    assert applied(done, 2, now=at(5)) is None


def test_what_was_never_sent_is_not_acknowledged() -> None:
    """Neither a version above nor one below that this lease never had."""
    record = given(lease(3), 5, now=at(1), pushed=True)
    for version in (0, 1, 4, 6):
        assert applied(record, version, now=at(2)) is None
        assert failed(record, version, "", now=at(9)) is None


def test_a_failure_stays_until_the_version_is_applied_or_another_is_sent() -> None:
    """The same said again is nothing new."""
    broken = said(failed(given(lease(), 2, now=at(1), pushed=True), 2, "", now=at(9)))
    assert broken.ack_failed == "failed"
    assert failed(broken, 2, "", now=at(9)) is None
    assert is_confirmed(said(applied(broken, 2, now=at(2))))
    assert not given(broken, 3, now=at(2), pushed=True).ack_failed
