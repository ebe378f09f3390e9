"""A log's life: opened behind the one before it, kept signed while it is written, closed in order.

`open_journal` is the only way to a Journal. What is found of an earlier life is `broker.audit.recovery`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog

from broker.audit.anchors import Anchor, Relay
from broker.audit.checkpoint import Origin, key_name, root_text
from broker.audit.checkpointer import Checkpointer
from broker.audit.counters import Counters
from broker.audit.encoding import encode
from broker.audit.entries import LogClosed, LogOpened
from broker.audit.errors import outside
from broker.audit.journal import Journal
from broker.audit.note import Signer, Verifier
from broker.audit.recovery import Found, find_previous, newest_log
from broker.audit.settings import AuditSettings
from broker.audit.source import READ_DEADLINE_S
from broker.audit.tail import Tail
from broker.audit.tree import leaf_hash
from broker.clock import Clock
from broker.errors import BrokerError, Conflict, Unavailable
from storage.port import AuditAppend, Commit, Storage
from storage.records.audit import AuditLogRecord

OPEN_ATTEMPTS_MAX = 100
"""Each lost attempt means that another replica opened its log at the same moment."""
_log = structlog.get_logger("tokenbroker.audit")


@asynccontextmanager
async def open_journal(
    storage: Storage,
    *,
    seed: bytes,
    cluster_id: str,
    instance: str,
    clock: Clock,
    settings: AuditSettings,
    anchors: Sequence[Anchor] = (),
    accept_loss: bool = False,
) -> AsyncIterator[Journal]:
    """Open the next log of this instance, keep it signed, and close it in order on the way out.

    seed: 32 bytes, the cluster's audit signing key. On leaving, commits on their way are awaited up to
    `close_deadline_s`, then LogClosed and a final checkpoint are written; when that fails, the log is left as a crash
    would leave it, an error is logged, and nothing is raised, because the next opening recovers it.

    StartRefused: the log before was changed behind the broker's back (unless `accept_loss`), or a name is unfit.
    Unavailable: storage cannot serve.
    """
    signer = Signer(name=key_name(cluster_id), seed=seed)
    record, opened, found = await _begin(
        storage, signer=signer, cluster_id=cluster_id, instance=instance, clock=clock, accept_loss=accept_loss
    )
    counters = Counters(entries=1)
    tail = Tail()
    tail.land(0, [leaf_hash(encode(opened))])
    relays = tuple(Relay(anchor=anchor, counters=counters) for anchor in anchors)
    checkpointer = Checkpointer(
        storage=storage,
        clock=clock,
        signer=signer,
        record=record,
        previous=found.link,
        tail=tail,
        relays=relays,
        settings=settings,
        counters=counters,
    )
    await checkpointer.flush()
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        journal = Journal(
            storage=storage,
            record=record,
            vkey=signer.vkey,
            tail=tail,
            checkpointer=checkpointer,
            tasks=tasks,
            clock=clock,
            settings=settings,
            counters=counters,
        )
        loops = [
            tasks.create_task(checkpointer.every_second(), name="audit checkpoint by time"),
            tasks.create_task(checkpointer.every_many(), name="audit checkpoint by number"),
            *(tasks.create_task(relay.run(), name="audit anchor") for relay in relays),
        ]
        try:
            yield journal
        except Exception as error:  # noqa: BLE001 - raised below: a TaskGroup would wrap the caller's own error
            failure = error
        finally:
            await _finish(journal, checkpointer, clock=clock, loops=loops)
            for relay in relays:
                await relay.publish()
    if failure is not None:
        raise failure


async def _begin(
    storage: Storage, *, signer: Signer, cluster_id: str, instance: str, clock: Clock, accept_loss: bool
) -> tuple[AuditLogRecord, LogOpened, Found]:
    """Take the next number, and write the log's row with its first entry.

    The highest number is read before the instance's newest log: a log that appears in between costs this attempt
    (Conflict), so the chain of an instance never skips one, and what is read is never one that still grows.
    """
    for _ in range(OPEN_ATTEMPTS_MAX):
        async with outside(deadline_s=READ_DEADLINE_S):
            page = await storage.select(AuditLogRecord, descending=True, limit=1)
        number = page.records[0].log + 1 if page.records else 1
        origin = Origin(cluster=cluster_id, instance=instance, log=number).text()
        found = await find_previous(
            storage,
            await _fenced(storage, instance),
            cluster_id=cluster_id,
            verifier=Verifier(signer.vkey),
            accept_loss=accept_loss,
        )
        record = AuditLogRecord(
            log=number,
            instance=instance,
            origin=origin,
            previous=found.log,
            public_key=signer.public_key,
            opened_at=clock.now(),
        )
        opened = _opened(record, cluster_id, found)
        try:
            async with outside(deadline_s=READ_DEADLINE_S):
                await storage.commit(Commit(inserts=(record,), audit=AuditAppend(number, (encode(opened),))))
        except Conflict:
            continue
        if not found.closed:
            _log.warning("audit.recovered", previous=opened.previous, unsigned=found.unsigned, lost=found.lost)
        return record, opened, found
    raise Unavailable(f"{OPEN_ATTEMPTS_MAX} other replicas opened audit logs at this moment; start again")


async def _fenced(storage: Storage, instance: str) -> AuditLogRecord | None:
    """This instance's newest log, to which nobody can append any more: its process may only have stood still.

    Each append relies on the log's row, so moving that is enough. It needs to be done before the log is read. Where the
    row moves meanwhile, it was closed, or another start of this instance was quicker.
    """
    for _ in range(OPEN_ATTEMPTS_MAX):
        newest = await newest_log(storage, instance)
        if newest is None or newest.closed_at is not None:
            return newest
        try:
            async with outside(deadline_s=READ_DEADLINE_S):
                await storage.commit(Commit(updates=[msgspec.structs.replace(newest, rev=newest.rev + 1)]))
        except Conflict:
            continue
        return newest
    raise Unavailable(f"others started as {instance} {OPEN_ATTEMPTS_MAX} times at this moment; start again")


def _opened(record: AuditLogRecord, cluster_id: str, found: Found) -> LogOpened:
    if found.link is None:
        return LogOpened(at=record.opened_at, actor="system", instance=record.instance, cluster=cluster_id)
    return LogOpened(
        at=record.opened_at,
        actor="system",
        instance=record.instance,
        cluster=cluster_id,
        previous=found.link.origin,
        previous_size=found.link.size,
        previous_root=root_text(found.link.root),
        previous_closed=found.closed,
        previous_unsigned=found.unsigned,
        accepted_loss=found.lost,
    )


async def _finish(
    journal: Journal, checkpointer: Checkpointer, *, clock: Clock, loops: Sequence[asyncio.Task[None]]
) -> None:
    """Close in order, or leave what a crash would leave. Ends `loops` either way."""
    intact = journal.accepting and not any(loop.done() for loop in loops)
    journal.refuse("the broker is stopping; try another replica, or again when it has restarted")
    try:
        settled = await journal.settle()
    finally:
        for loop in loops:
            loop.cancel()
    await asyncio.wait(loops)
    if not (settled and intact):
        _log.error("audit.not_closed", origin=journal.record.origin, settled=settled, intact=intact)
        return
    now = clock.now()
    try:
        await journal.last_word(LogClosed(at=now, actor="system", instance=journal.record.instance))
        closing = msgspec.structs.replace(journal.record, closed_at=now, rev=journal.record.rev + 1)
        await checkpointer.flush(closing=closing)
    except BrokerError as error:
        _log.error("audit.not_closed", origin=journal.record.origin, error=error.message)
