"""Clocks: compared with the database's, within what the question took; told once, refused when far off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.clock import SystemClock
from broker.replicas.skew import REFUSE_S, WARN_S, Skew

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Wrong(SystemClock):
    """A clock that shows another time."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)


def measured(skew: Skew, ahead_s: float, took_s: float = 0.0) -> Skew:
    skew.measured(own=NOON + timedelta(seconds=ahead_s), database=NOON, took_s=took_s)
    return skew


@pytest.mark.parametrize("ahead_s", [4.9, -4.9, 0.0, WARN_S])
def test_a_small_skew_stops_nothing(ahead_s: float) -> None:
    """Below the bound grants go on."""
    assert measured(Skew(SystemClock()), ahead_s).trouble == ""


@pytest.mark.parametrize(("ahead_s", "where"), [(REFUSE_S, "ahead of"), (-REFUSE_S, "behind"), (3600.0, "ahead of")])
def test_a_large_skew_is_trouble(ahead_s: float, where: str) -> None:
    """At the bound new grants are refused, with how much and which way."""
    assert f"{abs(ahead_s):.1f} s {where} the database's" in measured(Skew(SystemClock()), ahead_s).trouble


def test_who_shares_a_database_with_nobody_has_no_clock_to_agree_with() -> None:
    """Set by an hour, or waking up after one, such a broker goes on granting: nothing is ever measured."""
    clock = Wrong(0.0)
    skew = Skew(clock)
    clock.ahead_s = 3600.0
    assert skew.trouble == ""


def test_a_slow_answer_is_no_skew() -> None:
    """The database may have read its clock at any time while the question was on its way."""
    assert measured(Skew(SystemClock()), 10.0, took_s=10.0).seconds == 0.0
    assert measured(Skew(SystemClock()), 0.0, took_s=10.0).seconds == 0.0
    assert measured(Skew(SystemClock()), 12.0, took_s=4.0).seconds == 8.0


def test_each_bound_is_told_once() -> None:
    """Crossing one says so, staying beyond it does not, and getting well is told."""
    skew = Skew(SystemClock())
    with capture_logs() as told:
        for ahead_s in (0.1, 0.6, 0.7, -6.0, -6.0, 0.6, 0.0, 0.0):
            measured(skew, ahead_s)
    assert [(entry["log_level"], entry["ahead_s"], entry["grants_refused"]) for entry in told] == [
        ("warning", 0.6, False),
        ("error", -6.0, True),
        ("info", 0.6, False),
        ("info", 0.0, False),
    ]


async def test_it_is_known_from_the_start_and_mends_itself(enter: Any, until: Any) -> None:
    """A replica whose clock is wrong knows it before its first grant, and a beat after it was set."""
    clock = Wrong(-20.0)
    one = await enter("one", clock=clock)
    assert -21.0 < one.roll.skew.seconds < -19.0
    clock.ahead_s = 0.0
    await until(lambda: abs(one.roll.skew.seconds) < WARN_S)
    assert one.roll.skew.trouble == ""


@pytest.mark.parametrize(("ahead_s", "where"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_that_is_set_is_trouble_before_it_is_measured(ahead_s: float, where: str) -> None:
    """Nothing is granted, and nobody's leases are ended, by an instant that is an hour off, not for one beat."""
    clock = Wrong(0.0)
    skew = measured(Skew(clock), 0.0)
    assert skew.trouble == ""
    clock.ahead_s = ahead_s
    assert f"3600.0 s {where} the database's" in skew.trouble
    assert measured(skew, 0.0).trouble == ""
