"""Find the newest pins of the authority tables in the logs of earlier lives, and verify as much of these as that takes.

A log is read from its end back to its newest pin, which carries a state of the log's tree. From there the entries are
hashed again up to the newest checkpoint: what leads to the root that it signs was neither changed nor shortened. So a
long log costs no more than a short one. Nothing is written, and nothing is compared here: see `broker.audit.pinned`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from broker.audit.checkpoint import Link, Origin
from broker.audit.encoding import decode
from broker.audit.entries import AuthorityPinned, LogClosed
from broker.audit.errors import EntryBroken, LogBroken, NoteBroken, ProofBroken, outside
from broker.audit.note import Verifier, strict_base64
from broker.audit.pinned import EVENT, Pin, states_of
from broker.audit.recovery import newest_checkpoint
from broker.audit.source import BLOCKS_AT_FIRST, READ_DEADLINE_S, Batch, StorageSource, batch_of, next_limit
from broker.audit.tree import Frontier, leaf_hash
from broker.errors import StartRefused
from storage.port import Storage
from storage.records.audit import AuditBlockRecord, AuditLogRecord
from storage.table import Key

FAULTS_MAX: Final = 20
"""After so many damaged or missing logs the search ends: more of them say nothing new."""
UNSIGNED_MAX: Final = 1000
"""Most pins behind the newest checkpoint of a log. A broker writes one in a second and then a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A log that is not what its checkpoints vouch for, or is missing."""

    log: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LookBack:
    """What the logs say. pins: the newest signed one of each instance, with the unsigned ones behind it.

    since: logs below this number were left alone, because a pin stands for theirs. open_from: the lowest number of a
    log that may still be written, since it was neither closed nor continued by its instance; 0: there is none such.
    """

    pins: tuple[Pin, ...]
    since: int
    open_from: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    """The end of one log. previous: the log before it, as its checkpoints say."""

    pins: tuple[Pin, ...]
    closed: bool
    previous: Link | None


async def look_back(storage: Storage, *, verifier: Verifier) -> LookBack:
    """The newest pins of all logs, those that are being written among them.

    Read manifests only afterwards: then none of them is rightfully behind a pin. Broken logs are told in `faults`, and
    their pins are not. Unavailable: storage cannot serve.
    """
    reader = _LogReader(storage=storage, verifier=verifier)
    pins: list[Pin] = []
    faults: list[Fault] = []
    since = open_from = 0
    settled: set[str] = set()
    seen: dict[str, Link | None] = {}
    expected: int | None = None
    async for record in _newest_first(storage):
        if record.log < since or len(faults) >= FAULTS_MAX:
            break
        if expected is not None and record.log != expected:
            faults.append(_missing(record.log + 1, expected))
        expected = record.log - 1
        if record.instance in settled:
            continue
        try:
            end = await reader.read(record, seen.get(record.instance))
        except (LogBroken, EntryBroken, NoteBroken, ProofBroken, StartRefused) as error:
            faults.append(Fault(log=record.log, text=f"audit log {record.log} was changed: {error.message}"))
            settled.add(record.instance)
            continue
        if record.instance not in seen and not end.closed:
            open_from = record.log
        seen[record.instance] = end.previous
        pins += end.pins
        signed = [pin for pin in end.pins if pin.signed]
        if signed:
            since = max(since, signed[-1].entry.since)
            settled.add(record.instance)
    if expected is not None and expected >= max(since, 1) and len(faults) < FAULTS_MAX:
        faults.append(_missing(max(since, 1), expected))
    return LookBack(pins=tuple(pins), since=since, open_from=open_from, faults=tuple(faults))


def _missing(first: int, last: int) -> Fault:
    what = f"audit log {last} is" if first == last else f"audit logs {first} to {last} are"
    return Fault(log=last, text=f"{what} missing, though logs are numbered without gaps")


async def _newest_first(storage: Storage) -> AsyncIterator[AuditLogRecord]:
    after: Key | None = None
    while True:
        async with outside(deadline_s=READ_DEADLINE_S):
            page = await storage.select(AuditLogRecord, after=after, descending=True)
        for record in page.records:
            yield record
        after = page.next
        if after is None:
            return


class _LogReader:
    """Read the end of a log. EntryBroken, LogBroken, NoteBroken, ProofBroken, StartRefused: it is not as signed."""

    def __init__(self, *, storage: Storage, verifier: Verifier) -> None:
        self._storage = storage
        self._verifier = verifier
        self._cluster = verifier.name.removesuffix("/audit")

    async def read(self, record: AuditLogRecord, vouched: Link | None) -> _End:
        """vouched: what a later log of the instance says of this one, if it is of this one."""
        log = record.log
        origin = Origin(cluster=self._cluster, instance=record.instance, log=log).text()
        checkpoint = await newest_checkpoint(self._storage, log, origin, self._verifier)
        head = None if checkpoint is None else checkpoint.head
        if vouched is not None and vouched.origin == origin and (head is None or head.size < vouched.size):
            head = vouched
        signed = 0 if head is None else head.size
        found, stored = await self._locate(log, signed)
        if stored < signed:
            raise LogBroken(f"{signed} entries are signed for, and {stored} are there")
        if head is None and stored > 1:
            raise LogBroken(f"its checkpoints are gone, though {stored} entries are there")
        frontier = Frontier() if found is None else _tree_of(found)
        pins, last = await self._verify(log, frontier, head, stored)
        return _End(
            pins=pins,
            closed=stored == signed and _is_closing(last),
            previous=None if checkpoint is None else checkpoint.previous,
        )

    async def _locate(self, log: int, signed: int) -> tuple[Pin | None, int]:
        """The newest pin among the first `signed` entries, and how many entries are stored."""
        after: Key | None = None
        limit = BLOCKS_AT_FIRST
        stored: int | None = None
        while True:
            async with outside(deadline_s=READ_DEADLINE_S):
                page = await self._storage.select(
                    AuditBlockRecord, prefix=(log,), after=after, descending=True, limit=limit
                )
            for block in page.records:
                batch = _readable(batch_of(block))
                end = batch.first_seq + len(batch.entries)
                stored = end if stored is None else stored
                for seq in range(min(end, signed) - 1, batch.first_seq - 1, -1):
                    pin = _pin(log, seq, batch.entries[seq - batch.first_seq], signed=True)
                    if pin is not None:
                        return pin, stored
            after = page.next
            if after is None:
                return None, stored or 0
            limit = next_limit(limit, len(page.records), sum(len(block.entries) for block in page.records))

    async def _verify(
        self, log: int, frontier: Frontier, head: Link | None, stored: int
    ) -> tuple[tuple[Pin, ...], bytes]:
        """Hash from `frontier` on; the newest signed pin with all unsigned ones, and the last signed entry."""
        signed = 0 if head is None else head.size
        newest: Pin | None = None
        unsigned: list[Pin] = []
        last = b""
        async for batch in StorageSource(storage=self._storage).batches(log, frontier.size):
            at = frontier.size
            if at >= stored:
                break
            if _readable(batch).first_seq != at:
                raise LogBroken(f"entry {at} is missing")
            for seq, raw in enumerate(batch.entries, at):
                if seq < signed:
                    last = raw
                pin = _pin(log, seq, raw, signed=seq < signed)
                if pin is not None and pin.signed:
                    newest = pin
                elif pin is not None:
                    unsigned.append(pin)
            if len(unsigned) > UNSIGNED_MAX:
                raise LogBroken(f"more than {UNSIGNED_MAX} pins are under no checkpoint")
            _grow(frontier, [leaf_hash(raw) for raw in batch.entries], head)
        if frontier.size < stored:
            raise LogBroken(f"entry {frontier.size} is missing")
        return (*(() if newest is None else (newest,)), *unsigned), last


def _grow(frontier: Frontier, leaves: list[bytes], head: Link | None) -> None:
    """Append the leaves. LogBroken: the tree has another root where it reaches the size that `head` vouches for."""
    ahead = 0 if head is None else head.size - frontier.size
    if head is not None and 0 < ahead <= len(leaves):
        frontier.extend(leaves[:ahead])
        if frontier.root() != head.root:
            raise LogBroken(f"its {head.size} entries are not those that are signed for")
        leaves = leaves[ahead:]
    frontier.extend(leaves)


def _readable(batch: Batch) -> Batch:
    if batch.fault:
        raise LogBroken(f"entry {batch.first_seq} and those stored with it cannot be read: {batch.fault}")
    return batch


def _pin(log: int, seq: int, raw: bytes, *, signed: bool) -> Pin | None:
    """The pin that an entry is, if it is one. EntryBroken: it begins like one."""
    if not raw.startswith(EVENT):
        return None
    entry = decode(raw)
    if not isinstance(entry, AuthorityPinned):
        return None
    states_of(entry)
    return Pin(log, seq, entry, signed)


def _tree_of(pin: Pin) -> Frontier:
    if pin.entry.tree_size > pin.seq:
        raise ProofBroken(f"entry {pin.seq} pins a tree that it cannot know")
    return Frontier.of(pin.entry.tree_size, [strict_base64(root) for root in pin.entry.subtrees])


def _is_closing(raw: bytes) -> bool:
    try:
        return isinstance(decode(raw), LogClosed)
    except EntryBroken:
        return False
