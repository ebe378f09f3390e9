"""Time spans and instants as people write them: `90s`, `5m`, `7d`; `2026-12-31T23:59:59Z`. The same everywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from broker.errors import BadRequest

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)?")
_SPAN_MAX_S: Final = 100 * 366 * 86400.0


def parse_span(text: str) -> timedelta:
    """A span out of a number and a unit (ms, s, m, h, d; none means seconds). BadRequest: anything else."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise BadRequest(f"{text[:40]!r} is no time span; write a number and a unit, such as 90s, 5m, 1h or 7d")
    seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if seconds > _SPAN_MAX_S:
        raise BadRequest(f"{text[:40]!r} is longer than 100 years")
    return timedelta(seconds=seconds)


def show_span(span: timedelta) -> str:
    """A span in the largest unit that divides it, such as `5m`."""
    seconds = span.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:g}s"


def show_instant(at: datetime) -> str:
    """An aware instant, in UTC and to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
