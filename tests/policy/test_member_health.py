"""How a member of a pool does, and what one worker's word about it can do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.health import REMEMBERED, REST_MAX, Health, after_report, health
from storage.records import MemberRecord, PoolRecord
from tokenbroker_client.wire import ReportEvent

AT = datetime(2026, 1, 1, tzinfo=UTC)
MEMBERS = ("a", "b", "c", "d", "e")
POOL = PoolRecord(
    token="p",
    members=MEMBERS,
    leases_max=1,
    cool_down_s=30,
    witnesses=2,
    created_by="",
    created_at=AT,
    updated_at=AT,
)


def told(
    known: dict[str, MemberRecord], member: str = "a", event: str = "rejected", worker: str = "w", **more: Any
) -> MemberRecord | None:
    pool = msgspec.structs.replace(POOL, witnesses=more.pop("witnesses", 2))
    given_: dict[str, Any] = {"version": 1, "current": 1, "retry_after_s": None, "now": AT, **more}
    return after_report(pool, member, known=known, event=ReportEvent(event), worker=worker, **given_)


def test_a_rate_limit_rests_the_member_as_long_as_upstream_said() -> None:
    """Else for the pool's cool-down; and never longer than a quarter of an hour."""
    for asked, rest in ((5.0, 5.0), (None, 30.0), (86_400.0, REST_MAX.total_seconds())):
        row = told({}, event="rate_limited", retry_after_s=asked)
        assert row is not None
        assert row.cool_until == AT + timedelta(seconds=rest)
        assert health(row, 1, AT) is Health.RESTING
        assert health(row, 1, row.cool_until) is Health.WELL


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    """The later report changes nothing."""
    row = told({}, event="rate_limited", retry_after_s=60.0)
    assert row is not None
    assert told({"a": row}, event="rate_limited", retry_after_s=5.0, worker="v") is None


def test_a_rejection_of_a_version_that_is_no_longer_current_says_nothing() -> None:
    """The member has another value by now."""
    assert told({}, version=1, current=2) is None


def test_rejections_far_apart_are_not_put_together() -> None:
    """Two workers within an hour make a quarantine, and not two in a year."""
    first = told({}, worker="v")
    assert first is not None
    late = told({"a": first}, now=AT + REMEMBERED + timedelta(seconds=1))
    assert late is not None
    assert (late.quarantined_at, late.rejected_by) == (None, ("w",))
    soon = told({"a": first}, now=AT + REMEMBERED)
    assert soon is not None
    assert (soon.quarantined_at, soon.rejected_by) == (AT + REMEMBERED, ("v", "w"))


def test_rate_limits_keep_no_rejection_in_memory() -> None:
    """What comes between two rejections does not bring them within an hour of each other."""
    first = told({}, worker="v")
    assert first is not None
    limited = told({"a": first}, event="rate_limited", now=AT + timedelta(minutes=50))
    assert limited is not None
    late = told({"a": limited}, now=AT + timedelta(minutes=70))
    assert late is not None
    assert (late.quarantined_at, late.rejected_by) == (None, ("w",))


def test_a_pool_of_one_worker_takes_its_word_where_the_operator_says_so() -> None:
    """Nobody else would ever report; with three witnesses, two do not do."""
    row = told({}, witnesses=1)
    assert row is not None
    assert (row.quarantined_at, row.reason) == (AT, "rejected by w")
    known: dict[str, MemberRecord] = {}
    for worker, quarantined_at in (("u", None), ("v", None), ("u", None), ("w", AT)):
        after = told(known, worker=worker, witnesses=3)
        assert after is not None
        assert after.quarantined_at == quarantined_at
        known["a"] = after


def test_a_new_version_ends_a_quarantine_by_reports_and_none_by_an_operator() -> None:
    """An operator's names no version."""
    row = MemberRecord(token="p", member="a", cool_until=None, quarantined_at=AT, reason="", changed_at=AT, version=1)
    assert (health(row, 1, AT), health(row, 2, AT)) == (Health.QUARANTINED, Health.WELL)
    by_hand = MemberRecord(token="p", member="a", cool_until=None, quarantined_at=AT, reason="", changed_at=AT)
    assert health(by_hand, 2, AT) is Health.QUARANTINED


REPORTS = st.lists(
    st.tuples(
        st.sampled_from(MEMBERS),
        st.sampled_from(["rejected", "rate_limited", "ok"]),
        st.none() | st.floats(min_value=0, max_value=86_400),
        st.integers(min_value=0, max_value=600),
    ),
    max_size=40,
)


@given(reports=REPORTS)
def test_one_worker_never_takes_out_more_than_half_of_a_pool(reports: list[tuple[str, str, float | None, int]]) -> None:
    """Whatever it reports, and however often: of five members three can be leased, and none is quarantined."""
    known: dict[str, MemberRecord] = {}
    now = AT
    for member, event, retry_after_s, later_s in reports:
        now += timedelta(seconds=later_s)
        row = told(known, member, event, retry_after_s=retry_after_s, now=now)
        if row is not None:
            assert row.rev == (known[member].rev + 1 if member in known else 1)
            known[member] = row
        states = [health(known.get(each), 1, now) for each in MEMBERS]
        assert states.count(Health.WELL) >= 3
        assert Health.QUARANTINED not in states
