"""Tokens that are made for each lease: who makes them, and what was made and is still to be unmade."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from storage.table import Record, Table

IssuedState = Literal["making", "live", "ending"]


class IssuerRecord(Record, frozen=True, kw_only=True):
    """How the values of a token are made, where none is stored. Authority: it decides what is made, and as whom.

    settings: of the issuer, nothing secret. credentials: the tokens that hold what it signs in with, by the issuer's
    name for each. leases_max, worker_leases_max: how many may exist upstream at a time, in all and of one worker.
    """

    table: ClassVar[Table] = Table(name="issuer", key=("token",))

    token: str
    issuer: str
    settings: dict[str, str]
    credentials: dict[str, str]
    leases_max: int
    worker_leases_max: int
    created_by: str
    created_at: datetime
    mac: bytes = b""


class IssuedRecord(Record, frozen=True, kw_only=True):
    """What exists upstream for one lease. Written before it is made, deleted when it is gone there.

    handle: what upstream calls it, nothing secret. sealed: the value, under the context (token#lease, 1); empty while
    it is made. ends_at: when it ends upstream by itself. due_at: when to try next to end it; while it is live, when
    its lease is over at the latest. ended_at: since when it is to be ended. attempt, error: at that.
    """

    table: ClassVar[Table] = Table(
        name="issued",
        key=("lease",),
        indexes={"token": ("token", "worker"), "data_key": ("data_key",), "state": ("state",)},
        due=("due_at",),
    )

    lease: str
    token: str
    worker: str
    issuer: str
    state: IssuedState
    handle: dict[str, str]
    content_type: str
    keyring: str
    data_key: str
    fmt: int
    sealed: bytes
    made_at: datetime
    ends_at: datetime | None
    due_at: datetime | None
    ended_at: datetime | None = None
    attempt: int = 0
    error: str = ""
    mac: bytes = b""
