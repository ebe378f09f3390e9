"""When a token is rotated next: every so often or by a cron expression, in weekly windows, all in UTC. Pure.

A clock that jumped ahead brings one rotation, not one for each time that was jumped over; one that went back brings
none before the last one was.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

from broker.policy.conditions import WEEK_MIN, minute_of_week, weekly_spans
from broker.rotation.errors import ScheduleRefused
from storage.records.grants import Window

EVERY_S_MIN: Final = 60
EVERY_S_MAX: Final = 3660 * 86_400
CRON_CHARS_MAX: Final = 100
_TRIES: Final = 400
"""So many windows are looked into for a time that cron names; windows come at least once a week."""


def next_start(
    *, every_s: int | None, cron: str, windows: Sequence[Window], now: datetime, since: datetime | None
) -> datetime | None:
    """The next instant at or after `now` at which to begin, and after `since`; None: never by itself.

    since: when the value in use came; None: there is none yet, so an interval is over. ScheduleRefused: cron never
    comes, or never in a window.
    """
    spans = tuple(span for window in windows for span in weekly_spans(window))
    if every_s is not None:
        return _into(now if since is None else max(now, since + timedelta(seconds=every_s)), spans)
    if cron:
        return _next_cron(cron, now if since is None else max(now, since), spans)
    return None


def check_schedule(*, every_s: int | None, cron: str, windows: Sequence[Window], now: datetime) -> None:
    """Accept an interval of a minute to ten years, or a cron expression that comes; or neither.

    ScheduleRefused: both, out of these bounds, or see `next_start`. WindowsRefused: a malformed window.
    """
    if every_s is not None and cron:
        raise ScheduleRefused("every and cron: give one of them")
    if every_s is not None and not EVERY_S_MIN <= every_s <= EVERY_S_MAX:
        raise ScheduleRefused(f"every: {every_s} s is not {EVERY_S_MIN} s to {EVERY_S_MAX} s (about ten years)")
    next_start(every_s=every_s, cron=cron, windows=windows, now=now, since=None)


def _next_cron(cron: str, after: datetime, spans: Sequence[tuple[int, int]]) -> datetime:
    """The first time behind `after` that cron names, in one of the spans."""
    if len(cron) > CRON_CHARS_MAX or not cron.isascii() or len(cron.split()) != 5:
        raise ScheduleRefused(
            f"cron: write five fields (minute hour day-of-month month day-of-week) in at most {CRON_CHARS_MAX} "
            'characters, such as "0 3 * * 1" for Mondays at 03:00 UTC'
        )
    for _ in range(_TRIES):
        at = _named(cron, after)
        if (opens := _into(at, spans)) == at:
            return at
        after = opens - timedelta(seconds=1)
    raise ScheduleRefused(f"cron: {cron!r} comes, but never in a window; widen the windows, or move the time")


def _named(cron: str, after: datetime) -> datetime:
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except StopIteration:
        raise ScheduleRefused(f"cron: {cron!r} names no day that ever comes") from None
    except OverflowError:
        raise ScheduleRefused(f"cron: {cron!r} names no day before the end of the calendar") from None
    except (CronSimError, AssertionError) as error:
        why = str(error) or "a field that is not understood"
        raise ScheduleRefused(f'cron: {cron!r}: {why[:60]}; write it like "0 3 * * 1" or "*/30 * * * *"') from None


def _into(at: datetime, spans: Sequence[tuple[int, int]]) -> datetime:
    """`at` if one of the spans holds it, else the start of the next one. Without spans: `at`."""
    minute = minute_of_week(at)
    if not spans or any(start <= minute < end for start, end in spans):
        return at
    ahead = min((start - minute) % WEEK_MIN for start, _ in spans)
    return at.replace(second=0, microsecond=0) + timedelta(minutes=ahead)
