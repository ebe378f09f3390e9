"""What the doctor says: one finding for each thing looked at."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warning", "failed", "skipped"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """check: what was looked at. said: what was found and, unless it is ok, what to do about it."""

    check: str
    state: State
    said: str


def ok(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check=check, state="ok", said=said)


def warning(check: str, said: str) -> Finding:
    """It works, and should be known."""
    return Finding(check=check, state="warning", said=said)


def failed(check: str, said: str) -> Finding:
    """A broker would refuse to start, or would not be safe."""
    return Finding(check=check, state="failed", said=said)


def skipped(check: str, said: str) -> Finding:
    """It could not be looked at, for a reason that another finding has."""
    return Finding(check=check, state="skipped", said=said)
