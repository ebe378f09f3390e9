"""Values that were made for one lease each: how the row of one reads as a version, and ends with its lease.

Making them is `making`'s, ending them upstream `unmaking`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from broker.authority.book import Book
from broker.errors import Tampered, Unavailable
from storage.errors import StorageError
from storage.port import PAGE_MAX, Amended, Storage
from storage.records import IssuedRecord, IssuerRecord, LeaseRecord, VersionRecord
from storage.table import Record

log = structlog.get_logger()

READ_S: Final = 2.0
"""Longest wait for the rows of values whose leases end; as long as the desk waits for its commit."""

VERSION: Final = 1
"""The number of a value that is made for a lease: it has no other before or after it."""

ISSUED: Final = VersionRecord(
    token="",
    version=VERSION,
    stage="current",
    content_type="",
    keyring="",
    data_key="",
    fmt=0,
    sealed=b"",
    created_at=datetime(1970, 1, 1, tzinfo=UTC),
    created_by="system",
)
"""What stands for the current version where each lease has its own."""


def sealed_name(token: str, lease: str) -> str:
    """What the value is sealed for, in place of a token's name: no token can be called so (docs/spec/envelope.md)."""
    return f"{token}#{lease}"


def as_version(record: IssuedRecord) -> VersionRecord:
    """The value as the vault opens it."""
    return msgspec.structs.replace(
        ISSUED,
        token=sealed_name(record.token, record.lease),
        content_type=record.content_type,
        keyring=record.keyring,
        data_key=record.data_key,
        fmt=record.fmt,
        sealed=record.sealed,
        created_at=record.made_at,
    )


def live(record: IssuedRecord, *, until: datetime) -> IssuedRecord:
    """The row once its lease is granted. until: when the lease is over at the latest, however it ends."""
    return msgspec.structs.replace(record, rev=record.rev + 1, state="live", due_at=until)


def to_end(record: IssuedRecord, *, now: datetime, due_at: datetime | None = None) -> IssuedRecord:
    """The row once its lease is over, or never was. due_at: when to begin with it; None: at once."""
    return msgspec.structs.replace(
        record, rev=record.rev + 1, state="ending", ended_at=record.ended_at or now, due_at=due_at or now
    )


class Endings:
    """What ends together with leases, in the commit that ends them, whoever decided that and why."""

    def __init__(
        self,
        *,
        storage: Storage,
        issuers: Book[IssuerRecord],
        stores: Callable[[str], bool],
        verify: Callable[[Record], None],
        sign: Callable[[IssuedRecord], IssuedRecord],
    ) -> None:
        """stores: whether this replica knows a token as one that nothing is made for."""
        self._storage = storage
        self._issuers = issuers
        self._stores = stores
        self._verify = verify
        self._sign = sign

    async def of(self, *leases: Sequence[LeaseRecord | Amended], now: datetime) -> list[IssuedRecord]:
        """The rows to write beside these. Reads nothing where none of those that have ended can have been made for: a
        token that this replica has not heard of may be a new one, with an issuer that it has not heard of either.

        Unavailable: storage did not say in time. A row that was tampered with is left as it is: its own time brings it
        to `unmaking`, and the lease ends all the same.
        """
        over = [
            (row.lease,)
            for written in leases
            for each in written
            for row in (each.after if isinstance(each, Amended) else each,)
            if isinstance(row, LeaseRecord) and row.state != "live" and self._may_be_made(row.token)
        ]
        ending: list[IssuedRecord] = []
        for start in range(0, len(over), PAGE_MAX):
            ending += await self._ending(over[start : start + PAGE_MAX], now)
        return ending

    def _may_be_made(self, token: str) -> bool:
        return (token,) in self._issuers or not self._stores(token)

    async def _ending(self, keys: Sequence[tuple[str]], now: datetime) -> list[IssuedRecord]:
        try:
            async with asyncio.timeout(READ_S):
                rows = await self._storage.get_many(IssuedRecord, keys)
        except TimeoutError:
            raise Unavailable(f"storage did not answer within {READ_S:g} s; nothing was changed") from None
        except StorageError as error:
            raise Unavailable(str(error)) from error
        return [self._sign(to_end(row, now=now)) for row in rows.values() if row.state == "live" and self._genuine(row)]

    def _genuine(self, row: IssuedRecord) -> bool:
        try:
            self._verify(row)
        except Tampered as error:
            log.error("issued_tampered", lease=row.lease, token=row.token, error=error.message)  # noqa: TRY400 - no bug
            return False
        return True
