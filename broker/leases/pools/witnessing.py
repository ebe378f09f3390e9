"""Let a report say something about the member of a pool whose value was used, beside what it says about the lease.

What one worker's word can do is bounded in `policy.health`. The row goes into the commit of the report.
"""

from __future__ import annotations

from functools import partial

import msgspec
import structlog

from broker.audit.entries import PoolChanged
from broker.leases.batch import Batch
from broker.leases.operation import Missing
from broker.policy.health import after_report
from storage.records import LeaseRecord, MemberRecord
from tokenbroker_client.wire import ReportEvent

log = structlog.get_logger()


def witnessed(
    batch: Batch, lease: LeaseRecord, *, event: ReportEvent, version: int, retry_after_s: float | None, again: bool
) -> MemberRecord | None:
    """The member's next row, which `add` is to write; None: the report changes nothing about a member.

    again: what is known of the members was out of date, so it is read once more. Missing: it is not in memory.
    """
    context = batch.context
    pool = context.pools.book.get((lease.token,))
    if pool is None or lease.member not in pool.members:
        return None
    known = context.pools.known(lease.token)
    if known is None or again:
        raise Missing(first=partial(context.pools.load, (lease.token,)))
    if lease.member not in context.heads.known:
        raise Missing(heads=(lease.member,))
    head = context.heads.known[lease.member]
    if head is None:
        return None
    pending = {row.member: row for row in batch.rows if isinstance(row, MemberRecord) and row.token == lease.token}
    after = after_report(
        pool,
        lease.member,
        known={**known, **pending},
        event=event,
        version=version,
        current=head.token.current,
        retry_after_s=retry_after_s,
        worker=lease.worker,
        now=batch.now,
    )
    if after is not None and (before := pending.get(lease.member)) is not None:
        # Another report of this batch wrote the row already: a commit names it once.
        batch.rows.remove(before)
        return msgspec.structs.replace(after, rev=before.rev)
    return after


def add(batch: Batch, row: MemberRecord) -> None:
    """Write the row with the batch, and put a quarantine on record."""
    batch.rows.append(row)
    batch.announce.append((MemberRecord.table.name, row.key))
    if row.quarantined_at == batch.now:
        batch.entries.append(
            PoolChanged(
                at=batch.now,
                actor="system",
                token=row.token,
                change="quarantined",
                members=(row.member,),
                reason=row.reason,
            )
        )


def alarm(row: MemberRecord, batch: Batch) -> None:
    """Tell operators of a quarantine that is durable: a human has to look."""
    if row.quarantined_at == batch.now:
        log.error("pool_member_quarantined", pool=row.token, member=row.member, reason=row.reason)
