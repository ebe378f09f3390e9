"""What the same instance left behind: its newest log, checked against that log's newest checkpoint.

A log that was closed in order costs three small reads. After a crash every entry of it is read once, streaming.
Nothing is written here; `broker.audit.opening` records what was found.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from broker.audit.checkpoint import Checkpoint, Link, Origin
from broker.audit.encoding import decode
from broker.audit.entries import LogClosed
from broker.audit.errors import EntryBroken, NoteBroken, outside
from broker.audit.note import Verifier
from broker.audit.source import READ_DEADLINE_S, StorageSource, batch_of
from broker.audit.tree import Frontier, leaf_hash
from broker.errors import StartRefused
from storage.port import Storage
from storage.records.audit import AuditBlockRecord, AuditLogRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The log to continue, its end as stored, and how much of that is certain.

    link: None when this instance has no log yet. unsigned: entries beyond the newest checkpoint. lost: entries that
    a checkpoint vouches for and that are gone or altered; more than 0 only with `accept_loss`.
    """

    log: int = 0
    link: Link | None = None
    closed: bool = True
    unsigned: int = 0
    lost: int = 0


async def newest_log(storage: Storage, instance: str) -> AuditLogRecord | None:
    """The newest log of an instance; None: it never had one. Unavailable: storage cannot serve."""
    async with outside(deadline_s=READ_DEADLINE_S):
        page = await storage.select(AuditLogRecord, index="instance", prefix=(instance,), descending=True, limit=1)
    return page.records[0] if page.records else None


async def find_previous(
    storage: Storage, record: AuditLogRecord | None, *, cluster_id: str, verifier: Verifier, accept_loss: bool
) -> Found:
    """How the log of `record` ended, the newest of its instance, to which nobody appends; None: there is none.

    StartRefused: its stored entries are not what its newest checkpoint vouches for, unless `accept_loss`.
    Unavailable: storage cannot serve.
    """
    if record is None:
        return Found()
    origin = Origin(cluster=cluster_id, instance=record.instance, log=record.log).text()
    try:
        newest = await newest_checkpoint(storage, record.log, origin, verifier)
    except NoteBroken as error:
        if not accept_loss:
            raise _refused(record.log, f"its newest checkpoint does not verify: {error.message}") from None
        return await _walk(storage, record.log, Link(origin=origin, size=0, root=b""), lose_all=True)
    head = None if newest is None else newest.head
    if head is not None and await _is_closed(storage, record.log, head.size):
        return Found(log=record.log, link=head)
    return await _recover(storage, record.log, origin, head, accept_loss=accept_loss)


async def newest_checkpoint(storage: Storage, log: int, origin: str, verifier: Verifier) -> Checkpoint | None:
    """The newest checkpoint, its signature checked; None: there is none. NoteBroken: it is not this log's."""
    newest = await StorageSource(storage=storage).newest_note(log)
    if newest is None:
        return None
    size, note = newest
    checkpoint = Checkpoint.parse(verifier.open(note))
    head = checkpoint.head
    if head.origin != origin or head.size != size:
        raise NoteBroken(f"it is filed under log {log} and {size} entries, but signed for {head.origin}, {head.size}")
    return checkpoint


async def _is_closed(storage: Storage, log: int, size: int) -> bool:
    """Whether the last stored entry is LogClosed, and the `size` entries of the checkpoint end with it."""
    async with outside(deadline_s=READ_DEADLINE_S):
        page = await storage.select(AuditBlockRecord, prefix=(log,), descending=True, limit=1)
    if not page.records:
        return False
    batch = batch_of(page.records[0])
    if batch.fault or batch.first_seq + len(batch.entries) != size:
        return False
    try:
        return isinstance(decode(batch.entries[-1]), LogClosed)
    except EntryBroken:
        return False


async def _recover(storage: Storage, log: int, origin: str, head: Link | None, *, accept_loss: bool) -> Found:
    """Read the whole log. StartRefused: see `find_previous`."""
    wanted = head if head is not None else Link(origin=origin, size=0, root=Frontier().root())
    found = await _walk(storage, log, wanted, lose_all=False)
    if head is None and found.unsigned > 1:
        # The first entry gets a checkpoint before there is a second one, so this is no crash.
        if not accept_loss:
            raise _refused(log, f"{found.unsigned} entries are stored, and not even the first has a checkpoint")
        return dataclasses.replace(found, lost=found.unsigned)
    if found.lost and not accept_loss:
        stored = found.link.size if found.link is not None else 0
        if stored < wanted.size:
            raise _refused(log, f"{wanted.size} entries are signed for, but {stored} are stored without a gap")
        raise _refused(log, f"an entry is altered, or missing, among or behind the {wanted.size} signed ones")
    return found


async def _walk(storage: Storage, log: int, wanted: Link, *, lose_all: bool) -> Found:
    """The end of the log as stored, up to the first gap or unreadable block, compared with `wanted` on the way."""
    frontier = Frontier()
    matches = wanted.size == 0
    hole = 0
    async for batch in StorageSource(storage=storage).batches(log):
        if batch.fault or batch.first_seq != frontier.size:
            hole = max(1, batch.first_seq - frontier.size)
            break
        leaves = [leaf_hash(entry) for entry in batch.entries]
        ahead = wanted.size - frontier.size
        if 0 < ahead <= len(leaves):
            frontier.extend(leaves[:ahead])
            matches = frontier.root() == wanted.root
            leaves = leaves[ahead:]
        frontier.extend(leaves)
    link = Link(origin=wanted.origin, size=frontier.size, root=frontier.root())
    if lose_all:
        lost = max(1, frontier.size)
    elif matches:
        lost = hole
    else:
        lost = wanted.size - frontier.size if frontier.size < wanted.size else wanted.size
    return Found(log=log, link=link, closed=False, unsigned=max(0, frontier.size - wanted.size), lost=lost)


def _refused(log: int, what: str) -> StartRefused:
    return StartRefused(
        f"audit log {log} was changed behind the broker's back: {what}. Restore the newest backup, or start once "
        "with --accept-audit-loss, which records the loss in the next log"
    )
