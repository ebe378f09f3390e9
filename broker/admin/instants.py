"""Instants that people name: aware, within what calendars hold, and in UTC as records keep them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from broker.errors import BadRequest
from broker.spans import show_instant

AHEAD_MAX: Final = timedelta(days=36_525)
"""A hundred years: later instants are mistakes, and the last ones of the calendar cannot be moved to UTC."""


def parse_instant(field: str, at: datetime, now: datetime) -> datetime:
    """The instant in UTC. BadRequest: it has no offset, or is over a hundred years from now."""
    if at.tzinfo is None:
        raise BadRequest(f"{field}: it has no offset from UTC; write for example 2030-01-31T12:00:00Z")
    if abs(at - now) > AHEAD_MAX:
        raise BadRequest(f"{field}: it is over a hundred years from now; name an instant closer to {show_instant(now)}")
    return at.astimezone(UTC)


def parse_expiry(expires_at: datetime | None, now: datetime) -> datetime | None:
    """An instant after `now`, in UTC, or None for never. BadRequest: it is over already, or see `parse_instant`."""
    if expires_at is None:
        return None
    if (checked := parse_instant("expires_at", expires_at, now)) <= now:
        raise BadRequest(
            f"expires_at: {show_instant(checked)} is not after the broker's time {show_instant(now)}; name a later one"
        )
    return checked
