"""Identifiers: time-ordered for what is inserted often, purely random for the rest. An id is never authority."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ordered_ids(now: datetime, count: int) -> Iterator[str]:
    """`count` ids of 32 hexadecimal digits: 48 bits of Unix milliseconds, then 80 random bits each.

    Ids sort as text in the order of their milliseconds, and these in the order they are given out, so inserts stay at
    the end of an index.
    """
    prefix = _milliseconds(now).to_bytes(6, "big").hex()
    digits = os.urandom(10 * count).hex()
    return iter(sorted([prefix + digits[at : at + 20] for at in range(0, 20 * count, 20)]))


def time_ordered_id(now: datetime) -> str:
    """One such id."""
    return next(time_ordered_ids(now, 1))


def first_id_at(instant: datetime) -> str:
    """The smallest time-ordered id of this millisecond: a bound for walking ids by time."""
    return _milliseconds(max(instant, _EPOCH)).to_bytes(6, "big").hex() + "0" * 20


def random_id() -> str:
    """24 hexadecimal digits, 96 random bits."""
    return os.urandom(12).hex()


def _milliseconds(instant: datetime) -> int:
    elapsed = instant - _EPOCH
    return (elapsed.days * 86400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
