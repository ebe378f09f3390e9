"""Pools: tokens that stand for several equal ones, who has a place at which, and who waits for one."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from storage.table import Record, Table


class PoolRecord(Record, frozen=True, kw_only=True):
    """What leases of a token get: the value of one of its members, each a token. Authority: it decides who gets what.

    A token that is its own only member is one whose leases are bounded. leases_max: of each member at a time, 0 for any
    number; 1: exclusive. cool_down_s: how long a member rests after a worker was rate-limited there and upstream did
    not say for how long. witnesses: so many workers have to report a version as rejected before its member is
    quarantined.
    """

    table: ClassVar[Table] = Table(name="pool", key=("token",))

    token: str
    members: tuple[str, ...]
    leases_max: int
    cool_down_s: int
    witnesses: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    mac: bytes = b""


class SeatRecord(Record, frozen=True, kw_only=True):
    """A place at a member, taken by a lease. It is free again when that lease has ended, without a word here."""

    table: ClassVar[Table] = Table(name="seat", key=("token", "member", "number"))

    token: str
    member: str
    number: int
    lease: str
    worker: str
    taken_at: datetime


class TicketRecord(Record, frozen=True, kw_only=True):
    """A worker's turn in the line for a token without a free place. Ids are time-ordered: the first is served first."""

    table: ClassVar[Table] = Table(name="ticket", key=("token", "ticket"), due=("until",))

    token: str
    ticket: str
    worker: str
    session: str
    instance: str
    asked_at: datetime
    until: datetime


class MemberRecord(Record, frozen=True, kw_only=True):
    """How a member does upstream, by its workers' reports. Without a row: well.

    cool_until: it rests until then, on the word of the worker `rested_by`. quarantined_at: since then it is leased to
    nobody, as long as `version` is its current one; 0 stands for any. rejected_by: workers that reported `version` as
    rejected, the last of them at changed_at. reason: of the quarantine.
    """

    table: ClassVar[Table] = Table(name="member", key=("token", "member"))

    token: str
    member: str
    cool_until: datetime | None
    quarantined_at: datetime | None
    reason: str
    changed_at: datetime
    version: int = 0
    rejected_by: tuple[str, ...] = ()
    rested_by: str = ""
