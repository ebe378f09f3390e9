"""Weekly windows in UTC, as people write them: `mon-fri 02:00-05:30`."""

from __future__ import annotations

import re
from typing import Final

import typer

from broker.api.views.grants import WeeklyWindow

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(r"([a-z,-]+) +(\d{2}):(\d{2})-(\d{2}):(\d{2})")


def read_window(text: str) -> WeeklyWindow:
    """A weekly window in UTC: days, and from when to when. One that crosses midnight is two."""
    match = _WINDOW.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text[:40]!r} is no window; write days and times in UTC: mon-fri 02:00-05:30")
    start, end = (int(match[at]) * 60 + int(match[at + 1]) for at in (2, 4))
    return WeeklyWindow(days=_read_days(match[1]), start_min=start, end_min=end)


def _read_days(text: str) -> list[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last and last not in _DAYS):
            raise typer.BadParameter(
                f"{part[:20]!r}: write days as {', '.join(_DAYS)}, or from one to another: mon-fri"
            )
        count = (_DAYS.index(last or first) - _DAYS.index(first)) % len(_DAYS)
        days |= {(_DAYS.index(first) + ahead) % len(_DAYS) + 1 for ahead in range(count + 1)}
    return sorted(days)


def show_window(days: list[int], start_min: int, end_min: int) -> str:
    """A window as it is written."""
    named = ",".join(_DAYS[day - 1] for day in days)
    return f"{named} {start_min // 60:02}:{start_min % 60:02}-{end_min // 60:02}:{end_min % 60:02}"
