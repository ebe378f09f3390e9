"""What operators ask of the admin services, and the bounds of it that the API's description states.

It needs no service: a command that asks a broker over HTTP shares these types with it, and loads nothing of what a
broker does with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from storage.records.grants import Window

BATCH_MAX: Final = 1000
"""Values that one request may put."""
ISSUED_MAX: Final = 10_000
"""Most values that one token may have upstream at a time."""
MEMBERS_MAX: Final = 100
SEATS_MAX: Final = 1000
"""Places of one pool, all members together: each is read when a place is looked for."""
COOL_DOWN_S_MAX: Final = 900
WITNESSES_MAX: Final = 10
Finding = Literal[
    "unused",
    "never_used",
    "expiring",
    "expired",
    "no_token",
    "no_grant",
    "worker_disabled",
    "worker_expiring",
    "worker_expired",
    "never_connected",
    "not_connected",
    "third_party",
]
"""What a review of access may find of a worker and a grant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewVersion:
    """What somebody wants to store. None: as the token has it, or the default of a new one."""

    token: str
    value: bytes = field(repr=False)
    stage: Literal["current", "pending"] = "current"
    content_type: str | None = None
    labels: Mapping[str, str] | None = None
    keyring: str | None = None
    previous_valid_s: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewGrant:
    """Who may lease what, and on which terms. TTLs in seconds; None: 5 minutes, and the larger of that and an hour.

    previous: whether the previous version may be leased too.
    """

    subject: str
    pattern: str
    ttl_s: int | None = None
    max_ttl_s: int | None = None
    expires_at: datetime | None = None
    source_cidrs: Sequence[str] = ()
    windows: Sequence[Window] = ()
    previous: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NewIssuer:
    """How the values of a token shall be made. None: as they are now, or the default of a new one."""

    token: str
    issuer: str
    settings: Mapping[str, str]
    credentials: Mapping[str, str]
    leases_max: int | None = None
    worker_leases_max: int | None = None
    keyring: str | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewPool:
    """What a pool shall be. leases_max: of each member at a time, 0 for any number. None: as it is, or the default.

    witnesses: so many workers have to report a version as rejected before its member is quarantined.
    """

    token: str
    members: Sequence[str]
    leases_max: int | None = None
    cool_down_s: int | None = None
    witnesses: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessTerms:
    """What a review asks. unused: nothing was leased, or nobody connected, for so long. expiring: ends within it.

    worker, group, label: only such workers. third_party: a label key that marks workers of others.
    """

    unused: timedelta
    expiring: timedelta
    worker: str | None = None
    group: str | None = None
    label: tuple[str, str] | None = None
    third_party: str | None = None
