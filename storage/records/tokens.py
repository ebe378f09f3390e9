"""Tokens and their sealed versions."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from storage.table import Record, Table

Stage = Literal["pending", "current", "previous", "retired", "destroyed"]
TokenKind = Literal["stored", "issued", "pool"]


class TokenRecord(Record, frozen=True, kw_only=True):
    """The head of a named secret. `latest` is the highest number used.

    current, previous: the versions of these stages, 0 while there is none. rollout: the version that is on its way to
    become current, 0 for none; rollout_share: the part of 10 000 workers that has it. kind: whether its values are
    versions, are made for each lease (`IssuerRecord`), or are those of other tokens (`PoolRecord`).
    """

    table: ClassVar[Table] = Table(name="token", key=("name",))

    name: str
    keyring: str
    labels: dict[str, str]
    disabled: bool
    current: int
    latest: int
    previous_valid_s: int
    created_at: datetime
    updated_at: datetime
    previous: int = 0
    rollout: int = 0
    rollout_share: int = 0
    kind: TokenKind = "stored"
    mac: bytes = b""


class VersionRecord(Record, frozen=True, kw_only=True):
    """One sealed value, which opens only as (token, version, keyring, data_key, fmt).

    `sealed` is empty only in stage "destroyed"; there `data_key` is empty too.
    """

    table: ClassVar[Table] = Table(name="version", key=("token", "version"), indexes={"data_key": ("data_key",)})

    token: str
    version: int
    stage: Stage
    content_type: str
    keyring: str
    data_key: str
    fmt: int
    sealed: bytes
    created_at: datetime
    created_by: str
    mac: bytes = b""
