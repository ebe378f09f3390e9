"""The checks on one log, fed with its entries and checkpoints in ascending order. No I/O, no knowledge of the source.

Roots are compared at every size that somebody vouched for: the log's own checkpoints, anchors kept outside the
database, and the next log's first entry. Checks between logs are `broker.audit.verify`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from broker.audit.checkpoint import Checkpoint, Link
from broker.audit.encoding import decode
from broker.audit.entries import AuthorityPinned, Entry, LeaseGranted, LogClosed, LogOpened
from broker.audit.errors import EntryBroken, NoteBroken
from broker.audit.leasecheck import LeaseCheck
from broker.audit.note import Verifier
from broker.audit.pincheck import PinCheck
from broker.audit.pinned import Pin
from broker.audit.report import Findings
from broker.audit.source import Batch, LogFacts
from broker.audit.tree import Frontier, leaf_hash

CLOCK_TOLERANCE = timedelta(seconds=5)
"""Entries of one commit are written in any order within its deadline; only a larger step back is told."""
ENTRY_PROBLEMS_MAX = 20
"""Most single entries of one log that are named; the rest is counted."""


class Witness(IntEnum):
    """Who vouches for a root; at one size, the log itself is asked first."""

    CHECKPOINT = 0
    ANCHOR = 1
    SUCCESSOR = 2


class Mark(NamedTuple):
    """A root that somebody vouched for."""

    size: int
    witness: Witness
    root: bytes


class Successor(NamedTuple):
    """What the next log of the instance recorded about this one in its first entry."""

    log: int
    opened: LogOpened
    root: bytes


class LogCheck:
    """Feed `checkpoint` ahead of the entries it covers, `batch` in order, then `finish` once."""

    def __init__(
        self,
        *,
        facts: LogFacts,
        verifier: Verifier,
        findings: Findings,
        previous: Link | None,
        successors: Sequence[Successor],
        anchored: Sequence[Link],
        leases: LeaseCheck,
        pins: PinCheck,
    ) -> None:
        self._facts = facts
        self._verifier = verifier
        self._findings = findings
        self._previous = previous
        self._successors = successors
        self._leases = leases
        self._pins = pins
        self._name = f"log {facts.log}"
        self._frontier = Frontier()
        self._marks = [Mark(link.size, Witness.ANCHOR, link.root) for link in anchored]
        self._marks += [Mark(s.opened.previous_size, Witness.SUCCESSOR, s.root) for s in successors]
        heapq.heapify(self._marks)
        self._whole = True  # every entry so far was there and fits the checkpoints
        self._next_seq = 0
        self._good = 0  # size of the newest checkpoint that fits
        self._newest = 0  # size of the newest checkpoint, fitting or not
        self._closed_at: int | None = None
        self._latest: datetime | None = None
        self._misled = False  # a checkpoint and entry 0 name different logs; said once
        self._steps_back = 0
        self._entry_problems = 0

    @property
    def size(self) -> int:
        """One more than the number of the last entry seen."""
        return self._next_seq

    @property
    def vouched(self) -> int:
        """The largest size that a checkpoint seen so far speaks of."""
        return self._newest

    def checkpoint(self, filed_under: int | None, note: str) -> None:
        """Check a signed note, and remember its root for the moment the entries reach its size."""
        where = self._name if filed_under is None else f"{self._name}, checkpoint of {filed_under} entries"
        self._findings.checkpoints += 1
        try:
            checkpoint = Checkpoint.parse(self._verifier.open(note))
        except NoteBroken as error:
            after = f" (the one after {self._newest} entries)" if filed_under is None else ""
            self._findings.problem(f"{where}: a checkpoint{after} does not verify: {error.message}")
            return
        head = checkpoint.head
        if head.origin != self._facts.origin:
            self._findings.problem(f"{where}: it was signed for another log, {head.origin}")
        elif filed_under is not None and head.size != filed_under:
            self._findings.problem(f"{where}: it was signed for {head.size} entries; an older one was put in its place")
        elif head.size <= self._newest:
            self._findings.problem(f"{where}: a checkpoint of {head.size} entries follows one of {self._newest}")
        else:
            if checkpoint.previous != self._previous and not self._misled:
                self._misled = True
                self._findings.problem(f"{where}: it continues another log than entry 0 says")
            self._newest = head.size
            heapq.heappush(self._marks, Mark(head.size, Witness.CHECKPOINT, head.root))

    def batch(self, batch: Batch) -> None:
        """Check consecutive entries."""
        if batch.first_seq > self._next_seq:
            self._lost(f"{_entries(self._next_seq, batch.first_seq)} missing")
        elif batch.first_seq < self._next_seq:
            self._lost(f"entry {batch.first_seq} appears twice")
        if batch.fault:
            self._lost(f"entry {batch.first_seq} and those stored with it cannot be read: {batch.fault}")
        self._next_seq = max(self._next_seq, batch.first_seq)
        for seq, raw in enumerate(batch.entries, self._next_seq):
            self._entry(seq, raw)
        self._next_seq += len(batch.entries)
        self._findings.entries += len(batch.entries)
        if self._whole:
            self._grow([leaf_hash(raw) for raw in batch.entries])

    def _lost(self, what: str) -> None:
        self._whole = False
        self._findings.problem(f"{self._name}: {what}")

    def _entry(self, seq: int, raw: bytes) -> None:
        if not raw:
            self._lost(f"entry {seq} is missing: the database had lost it when it was exported")
            return
        try:
            entry = decode(raw)
        except EntryBroken as error:
            self._bad_entry(seq, error.message)
            return
        if self._latest is None or entry.at > self._latest:
            self._latest = entry.at
        elif self._latest - entry.at > CLOCK_TOLERANCE:
            self._step_back(seq, self._latest - entry.at)
        if isinstance(entry, LogOpened | LogClosed) or seq == 0:
            self._frame(seq, entry)
        elif isinstance(entry, LeaseGranted):
            self._leases.granted(entry)
        elif isinstance(entry, AuthorityPinned):
            self._pins.pinned(Pin(self._facts.log, seq, entry, signed=seq < self._newest))

    def _frame(self, seq: int, entry: Entry) -> None:
        """The first and the last entry of a log."""
        if isinstance(entry, LogOpened) != (seq == 0):
            self._bad_entry(seq, "a log begins with one log.opened entry, and has no other")
        elif isinstance(entry, LogOpened) and not self._facts.origin.startswith(f"{entry.cluster}/audit/"):
            self._bad_entry(seq, f"it opened a log of cluster {entry.cluster!r}")
        elif isinstance(entry, LogOpened | LogClosed) and entry.instance != self._facts.instance:
            self._bad_entry(seq, f"it is of instance {entry.instance!r}")
        elif isinstance(entry, LogClosed):
            self._closed_at = seq

    def _bad_entry(self, seq: int, what: str) -> None:
        self._entry_problems += 1
        if self._entry_problems <= ENTRY_PROBLEMS_MAX:
            self._findings.problem(f"{self._name}, entry {seq}: {what}")

    def _step_back(self, seq: int, by: timedelta) -> None:
        self._steps_back += 1
        if self._steps_back == 1:
            self._findings.note(f"{self._name}, entry {seq}: the clock stood {by.total_seconds():g} s further before")

    def _grow(self, leaves: list[bytes]) -> None:
        at = 0
        while self._whole and self._marks and self._marks[0].size <= self._frontier.size + len(leaves) - at:
            step = max(0, self._marks[0].size - self._frontier.size)
            self._frontier.extend(leaves[at : at + step])
            at += step
            self._meet(heapq.heappop(self._marks))
        self._frontier.extend(leaves[at:])

    def _meet(self, mark: Mark) -> None:
        """Compare the root of what was read with the root that somebody vouched for."""
        fits = self._frontier.root() == mark.root
        if mark.witness is Witness.CHECKPOINT:
            if fits:
                self._good = mark.size
            else:
                self._lost(
                    f"{_entries(self._good, mark.size)} not what was signed (the checkpoint of {mark.size} entries "
                    f"has another root; the one of {self._good} still fits)"
                )
        elif not fits and mark.witness is Witness.ANCHOR:
            self._findings.problem(
                f"{self._name}: the first {mark.size} entries are not those of the anchored checkpoint: "
                "history was rewritten, or the database was put back to an older state"
            )
        elif not fits:
            self._findings.problem(
                f"{self._name}: log {self._successor(mark.size).log} recorded another root over its first "
                f"{mark.size} entries"
            )

    def _successor(self, size: int) -> Successor:
        return next(s for s in self._successors if s.opened.previous_size == size)

    def finish(self, ceiling: int | None) -> None:
        """Check the end of the log.

        ceiling: checkpoints beyond this size were made while the entries were being read, and are left out (None:
        there are none such).
        """
        if self._entry_problems > ENTRY_PROBLEMS_MAX:
            more = self._entry_problems - ENTRY_PROBLEMS_MAX
            self._findings.problem(f"{self._name}: {more} further entries are not known facts")
        if self._steps_back > 1:
            self._findings.note(f"{self._name}: {self._steps_back} entries in all have an earlier time than one before")
        if self._next_seq == 0:
            self._lost("it has no entries, not even the one that opened it")
        for mark in sorted(self._marks, key=lambda mark: (-mark.size, mark.witness)):
            beyond = mark.witness is Witness.CHECKPOINT and ceiling is not None and mark.size > ceiling
            if mark.size > self._next_seq and not beyond:
                self._cut_off(mark)
                break
        if self._facts.entries is not None and self._facts.entries != self._next_seq:
            self._lost(f"{self._facts.entries} entries were exported, {self._next_seq} are here")
        if self._whole:
            self._unsigned()
        self._end()

    def _cut_off(self, mark: Mark) -> None:
        """Entries at the end are gone that `mark` vouches for."""
        missing = mark.size - self._next_seq
        accepted = [s for s in self._successors if s.opened.accepted_loss == missing]
        if accepted and self._whole:
            self._findings.note(
                f"{self._name}: {_entries(self._next_seq, mark.size)} missing; when log {accepted[0].log} was "
                "opened, an operator accepted that loss"
            )
            return
        who = {
            Witness.CHECKPOINT: "a signed checkpoint vouches",
            Witness.ANCHOR: "an anchored checkpoint vouches",
            Witness.SUCCESSOR: "the next log's first entry vouches",
        }[mark.witness]
        self._lost(f"{_entries(self._next_seq, mark.size)} missing at its end: {who} for {mark.size} entries")

    def _unsigned(self) -> None:
        """The entries behind the newest checkpoint, and those written after the next log was opened."""
        size = self._next_seq
        recorded = max((s.opened.previous_size for s in self._successors), default=None)
        if recorded is not None and recorded < size:
            grown = f"{size - recorded} entries were added after the next log recorded the end"
            if self._good < size:
                self._findings.problem(f"{self._name}: {grown}, and no checkpoint covers all of them")
            else:
                self._findings.note(f"{self._name}: {grown}: two processes used this instance name at once")
        elif self._good < size:
            cover = "the next log's first entry covers them" if recorded == size else "nothing vouches for them"
            self._findings.note(f"{self._name}: {_entries(self._good, size)} under no checkpoint of this log; {cover}")

    def _end(self) -> None:
        """Whether the log was closed in order, or a crash cut it off."""
        last = self._next_seq - 1
        marked = self._facts.closed_at is not None
        if self._closed_at is not None and self._closed_at != last:
            self._findings.problem(f"{self._name}, entry {self._closed_at}: it closes the log, but others follow")
        elif marked and self._closed_at is None:
            self._findings.problem(f"{self._name}: it is marked closed, but log.closed does not end it")
        elif marked and self._whole and self._good <= last:
            self._findings.problem(f"{self._name}: it is marked closed, but its last checkpoint is gone")
        elif self._closed_at is None and self._next_seq:
            state = "a crash ended it" if self._successors else "it is open, or a crash ended it"
            self._findings.note(f"{self._name}: it was not closed in order; {state}")


def _entries(first: int, end: int) -> str:
    return f"entry {first} is" if end - first == 1 else f"entries {first} to {end - 1} are"
