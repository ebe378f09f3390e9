"""Whose value a lease has: its token's own, or that of the member of a pool that it was given."""

from __future__ import annotations

from typing import Final

from broker.errors import Unavailable
from broker.leases.context import Context
from broker.leases.heads import Head
from broker.leases.operation import Missing
from broker.leases.terms import NO_VERSION
from storage.records import LeaseRecord

LEFT: Final = "member_left"
"""Why leases of a pool are revoked whose member is no longer in it, is disabled or has no current version."""


def followed(context: Context, record: LeaseRecord) -> Head | None:
    """The head whose versions the lease follows; None: it may not be leased any more.

    Missing: a head is not in memory. Unavailable: what is known of the pool is not of one moment; ask again.
    """
    known = context.heads.known
    try:
        head = known[record.token]
        if head is None or head.token.kind != "pool":
            return head if record.member in ("", record.token) else None
        pool = context.pools.book.get((record.token,))
        if pool is None:
            raise Unavailable(f"pool {record.token} is being changed")
        if head.token.disabled or record.member not in pool.members:
            return None
        return known[record.member]
    except KeyError:
        raise Missing(heads=tuple({name for name in tokens_of(record) if name not in known})) from None


def tokens_of(record: LeaseRecord) -> tuple[str, ...]:
    """The tokens whose heads say what becomes of the lease."""
    return (record.token,) if record.member in ("", record.token) else (record.token, record.member)


def why_ended(record: LeaseRecord) -> str:
    """Why a lease is revoked that follows nothing which may be leased."""
    return LEFT if record.member else NO_VERSION[record.stage]
