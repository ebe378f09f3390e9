"""What the broker asks of a rotator and of an issuer, and the laws that every adapter keeps.

The laws are executable in `broker.upstream.conformance`. An adapter keeps nothing between calls that it would miss
after a crash: what it must remember goes into `notes` or `handle`, which are stored, shown, and hold no secret.
Every call has a deadline, set by the caller, and may be cancelled at any await. Errors: `broker.upstream.errors` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from broker.clock import Clock
from broker.secret import Secret

NOTES_MAX = 16
"""Most entries in `notes` and in `handle`."""
NOTE_CHARS_MAX = 512
"""Most characters in a name or text of those."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What an adapter is opened with: the time, and what this installation's configuration lets adapters do.

    hosts: where adapters may sign in and send values, as HOST or HOST:PORT (`rotation.hosts`); they ask
    `destinations.check_host` before each call. webhooks: likewise for the rotator `webhook` (`rotation.webhooks`).
    commands: the programs that `rotation.commands` allows to be run.
    """

    clock: Clock
    hosts: frozenset[str] = frozenset()
    webhooks: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What an adapter acts with.

    token: for whom. settings: from the policy, nothing secret. credentials: opened for this call only, by the names
    that the policy gives them; the adapter neither keeps nor wipes them.
    """

    token: str
    settings: Mapping[str, str]
    credentials: Mapping[str, Secret]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation(Work):
    """One rotation. id: the same for each step and each attempt of it; letters, digits, - and _, at most 64 of them.
    notes: what `create` told, empty before.
    """

    id: str
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A new value, not yet used by anybody.

    notes: what later steps need to know. credentials: new values of credentials, where making this one used them up
    (a refresh token that serves once); the broker stores them before it goes on. expires_at: when upstream ends the
    value by itself, where it said so.
    """

    value: Secret
    content_type: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    expires_at: datetime | None = None


class Rotator(Protocol):
    """Replaces a value upstream in four steps; each may be asked again, after a crash too, and then does no more harm
    than once.
    """

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """Look at a policy before it is stored. credentials: the tokens, by the names that the policy gives them.

        BadSettings: something is missing, unknown or malformed; the message says what would be right.
        """
        ...

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """Make a new value. What an attempt before made under the same id, and nobody knows any more, is taken back.

        current: the value in use, None if the token has none yet. It goes on working until `finish`.
        """
        ...

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """Have upstream accept the new value, beside the one in use."""
        ...

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """Return only if upstream accepts the new value. Changes nothing there."""
        ...

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """Have upstream forget the value from before, which no worker uses any more."""
        ...

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """Have upstream forget the new value: the rotation was given up or taken back. new: None if it never was."""
        ...


@runtime_checkable
class Offline(Protocol):
    """An optional power of a rotator: nothing upstream knows what it makes, so a dry run needs no staging target."""

    offline: Literal[True]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted(Work):
    """A value that one lease needs. lease: its id, the same for each attempt. worker: who will have it.

    ttl_s: the longest that the lease can live, with all its renewals.
    """

    lease: str
    worker: str
    groups: tuple[str, ...]
    ttl_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """A value made for one lease. ends_at: when upstream ends it by itself; None: not before it is told to."""

    value: Secret
    content_type: str | None = None
    ends_at: datetime | None = None
    handle: Mapping[str, str] = field(default_factory=dict)


class Issuer(Protocol):
    """Makes a value for each lease, and ends it there when the lease has ended."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As `Rotator.check`."""
        ...

    def handle(self, wanted: Wanted) -> Mapping[str, str]:
        """How upstream will know it, as far as that is known beforehand. Stored before `issue` is called, so that what
        a crash leaves behind is found and ended.
        """
        ...

    async def issue(self, wanted: Wanted) -> Issued:
        """Make it. What an attempt before made for the same lease is replaced or given again."""
        ...

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        """End it upstream. Returning means that it is gone there, also if it never was. value: None if not known.

        EndsByItself: nobody can end it, and it still works; asked again at the instant it names, it is gone.
        """
        ...


RotatorProvider = Callable[[Site], AbstractAsyncContextManager[Rotator]]
"""What the entry point of a rotator is: opens it for one call or several, and closes what it opened."""
IssuerProvider = Callable[[Site], AbstractAsyncContextManager[Issuer]]
"""Likewise of an issuer."""
