"""When a token is rotated: intervals, cron expressions, windows. Laws over any instant and any clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from broker.policy.conditions import minute_of_week, weekly_spans
from broker.policy.errors import WindowsRefused
from broker.rotation.errors import ScheduleRefused
from broker.rotation.schedule import EVERY_S_MAX, EVERY_S_MIN, check_schedule, next_start
from storage.records.grants import Window

NOW = datetime(2026, 11, 22, 10, 30, 15, tzinfo=UTC)
"""A Sunday."""
INSTANTS = some.integers(0, 70 * 365 * 86_400).map(lambda seconds: NOW + timedelta(seconds=seconds))
WINDOWS = some.lists(
    some.builds(
        lambda days, start, length: Window(
            days=tuple(sorted(days)), start_min=start, end_min=min(1440, start + length)
        ),
        some.sets(some.integers(1, 7), min_size=1),
        some.integers(0, 1439),
        some.integers(1, 1440),
    ),
    max_size=4,
)
CRONS = some.sampled_from(["0 3 * * 1", "*/30 * * * *", "15 4 1 * *", "0 0 * * sun", "59 23 31 12 *", "0 12 29 2 *"])


def within(at: datetime, windows: list[Window]) -> bool:
    spans = [span for window in windows for span in weekly_spans(window)]
    return not spans or any(start <= minute_of_week(at) < end for start, end in spans)


@given(every_s=some.integers(EVERY_S_MIN, EVERY_S_MAX), windows=WINDOWS, now=INSTANTS, since=some.none() | INSTANTS)
def test_an_interval_is_kept(every_s: int, windows: list[Window], now: datetime, since: datetime | None) -> None:
    """It is not in the past, not before the interval is over, in a window, and at most a week later than it might."""
    at = next_start(every_s=every_s, cron="", windows=windows, now=now, since=since)
    assert at is not None
    earliest = now if since is None else max(now, since + timedelta(seconds=every_s))
    assert earliest <= at <= earliest + timedelta(days=7)
    assert within(at, windows)
    if not windows:
        assert at == earliest


@given(cron=CRONS, now=INSTANTS, since=some.none() | INSTANTS)
def test_a_cron_expression_is_kept(cron: str, now: datetime, since: datetime | None) -> None:
    """The time is behind both the clock and the last one, on a whole minute, and none that it names is left out."""
    at = next_start(every_s=None, cron=cron, windows=(), now=now, since=since)
    assert at is not None
    after = now if since is None else max(now, since)
    assert at > after
    assert (at.second, at.microsecond) == (0, 0)
    assert next_start(every_s=None, cron=cron, windows=(), now=at - timedelta(seconds=1), since=None) == at


@given(windows=WINDOWS, now=INSTANTS)
def test_cron_keeps_to_windows(windows: list[Window], now: datetime) -> None:
    """Of the times that an expression names, the next one in a window is taken: here every full hour."""
    hours = [now.replace(minute=0, second=0) + timedelta(hours=ahead) for ahead in range(1, 7 * 24 + 2)]
    expected = next((hour for hour in hours if within(hour, windows)), None)
    if expected is None:
        with pytest.raises(ScheduleRefused, match="never in a window"):
            next_start(every_s=None, cron="0 * * * *", windows=windows, now=now, since=None)
    else:
        assert next_start(every_s=None, cron="0 * * * *", windows=windows, now=now, since=None) == expected


@pytest.mark.parametrize(
    "cron",
    [
        "nonsense",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "0 3 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 3 * * mon#6",
        "@daily",
        "0 3 * * 1 " + "1," * 100 + "1",
        "٣ * * * *",
        "0 0 * * mon#1/2",
        "*/0 * * * *",
        "5-1 * * * *",
    ],
)
def test_cron_nonsense_is_refused(cron: str) -> None:
    """What is no expression, or names no day that comes, is refused with what to write instead."""
    with pytest.raises(ScheduleRefused, match="cron: "):
        check_schedule(every_s=None, cron=cron, windows=(), now=NOW)


@settings(max_examples=300)
@given(cron=some.text(some.sampled_from("0123456789*/,-LW#MONFEB ?"), max_size=30))
def test_any_text_is_a_schedule_or_refused(cron: str) -> None:
    """No text that somebody types ends in another error."""
    try:
        check_schedule(every_s=None, cron=cron, windows=(), now=NOW)
    except ScheduleRefused:
        return


def test_cron_that_misses_every_window_is_refused() -> None:
    """An expression whose times all lie outside the windows would never rotate anything."""
    with pytest.raises(ScheduleRefused, match="never in a window"):
        check_schedule(every_s=None, cron="0 3 * * *", windows=[Window(days=(1,), start_min=240, end_min=300)], now=NOW)


@pytest.mark.parametrize("every_s", [0, -1, EVERY_S_MIN - 1, EVERY_S_MAX + 1])
def test_an_interval_out_of_bounds_is_refused(every_s: int) -> None:
    """Below a minute a rotation would run into the next one; above ten years it is a mistake."""
    with pytest.raises(ScheduleRefused):
        check_schedule(every_s=every_s, cron="", windows=(), now=NOW)


def test_only_one_of_both() -> None:
    """An interval and cron at once contradict each other."""
    with pytest.raises(ScheduleRefused):
        check_schedule(every_s=3600, cron="0 3 * * *", windows=(), now=NOW)


def test_a_malformed_window_is_refused() -> None:
    """A window that ends before it begins is refused as grants refuse it."""
    with pytest.raises(WindowsRefused):
        check_schedule(every_s=3600, cron="", windows=[Window(days=(1,), start_min=300, end_min=200)], now=NOW)


def test_without_a_schedule_nothing_comes_due() -> None:
    """A policy without times is for rotations by hand."""
    assert next_start(every_s=None, cron="", windows=(), now=NOW, since=None) is None
