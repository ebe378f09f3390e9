"""Refused leases in the audit log, without letting one worker that asks in a loop fill it."""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeVar

from broker.audit.entries import LeaseRefused
from broker.errors import BrokerError
from broker.leases.answers import wire_code
from broker.leases.context import NotAllowed
from broker.leases.granting import Grant
from broker.vault.errors import CallerDenied

K = TypeVar("K")

PER_SESSION_MAX: Final = 16
"""Entries of one session within the quiet time, whatever names it asks for."""


class _Seen:
    """A window of time: when it began, how many entries it had, how many refusals had none."""

    __slots__ = ("entries", "silent", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.entries = 0
        self.silent = 0


class Refusals:
    """The first refusal of a session, token and code is recorded at once; like ones are counted for `quiet_s` seconds.

    A session has at most `PER_SESSION_MAX` entries within that time. The next entry of the kind, or else of the
    session, carries the count of those that had none. `bound` kinds and as many sessions are remembered; the oldest
    leave first.
    """

    def __init__(self, *, quiet_s: float = 10.0, bound: int = 4096) -> None:
        self._quiet_s = quiet_s
        self._bound = bound
        self._kinds: dict[tuple[str, str, str], _Seen] = {}
        self._sessions: dict[str, _Seen] = {}

    def note(self, operation: Grant, error: BrokerError, *, now: datetime, mono: float) -> LeaseRefused | None:
        """The entry to write, or None when like ones were written a moment ago."""
        code = str(wire_code(error))
        session = operation.holder.session
        kind = self._window(self._kinds, (session, operation.token, code), mono)
        if kind.entries:
            kind.silent += 1
            return None
        whole = self._window(self._sessions, session, mono)
        if whole.entries >= PER_SESSION_MAX:
            whole.silent += 1 + kind.silent
            kind.silent = 0
            return None
        count = 1 + kind.silent + whole.silent
        kind.entries, kind.silent = 1, 0
        whole.entries, whole.silent = whole.entries + 1, 0
        return LeaseRefused(
            at=now,
            actor=operation.holder.actor,
            token=operation.token,
            session=session,
            code=code,
            reason=error.reason if isinstance(error, (NotAllowed, CallerDenied)) else code,
            count=count,
        )

    def _window(self, windows: dict[K, _Seen], name: K, mono: float) -> _Seen:
        """The window that is open for this name; one that is over keeps only what it has not told."""
        seen = windows.get(name)
        if seen is not None and mono - seen.since < self._quiet_s:
            return seen
        fresh = _Seen(mono)
        if seen is not None:
            fresh.silent = seen.silent
            del windows[name]
        elif len(windows) >= self._bound:
            del windows[next(iter(windows))]
        windows[name] = fresh
        return fresh
