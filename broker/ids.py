"""Identifiers: time-ordered for what is inserted often, purely random for the rest. An id is never authority."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from typing import NewType

LeaseId = NewType("LeaseId", str)
SessionId = NewType("SessionId", str)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ordered_id(now: datetime) -> str:
    """26 characters of base32hex in lower case: 48 bits of Unix milliseconds, then 80 random bits.

    Ids sort as text in the order of their milliseconds, so inserts stay at the end of an index.
    """
    elapsed = now - _EPOCH
    milliseconds = (elapsed.days * 86400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
    return base64.b32hexencode(milliseconds.to_bytes(6, "big") + os.urandom(10))[:26].decode().lower()


def random_id() -> str:
    """20 characters of base32hex in lower case, 96 random bits and 4 zero bits."""
    return base64.b32hexencode(os.urandom(12))[:20].decode().lower()


def first_id_at(instant: datetime) -> str:
    """The smallest time-ordered id of this millisecond: a bound for walking ids by time."""
    elapsed = max(instant, _EPOCH) - _EPOCH
    milliseconds = (elapsed.days * 86400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
    return base64.b32hexencode(milliseconds.to_bytes(6, "big") + bytes(10))[:26].decode().lower()
