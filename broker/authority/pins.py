"""Pin the authority tables in the audit log, and refuse to start on tables that are behind the newest pin.

A table that was put back together with its manifest is rightful by itself; only somebody who remembers can tell. While
a replica runs, that is its memory; between two lives it is the log. Finding pins is `broker.audit.lookback`, comparing
them is `broker.audit.pinned`.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from broker.audit.entries import AuthorityPinned
from broker.audit.errors import LogBroken
from broker.audit.journal import Journal
from broker.audit.lookback import Fault, LookBack
from broker.audit.pinned import Lapse, lapses, text_of
from broker.authority.authority import Authority
from broker.authority.errors import TableRolledBack
from broker.clock import Clock
from broker.errors import BrokerError
from storage.records import ManifestRecord

log = structlog.get_logger()

EVERY_S: Final = 1.0
"""How often the duty looks whether a pin is due: a change is pinned after at most this time."""
QUIET_S: Final = 60.0
"""The longest time between two pins while other entries are written."""
ENTRIES_BETWEEN: Final = 50_000
"""So many entries make a pin due at the next look, which bounds what a start has to read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Tables that are behind a pin, and logs that no longer say what was pinned. Both empty: all is well."""

    behind: tuple[Lapse, ...]
    broken: tuple[Fault, ...]

    @property
    def sentences(self) -> list[str]:
        """What is wrong, for operators, without a remedy."""
        return [*(lapse.text for lapse in self.behind), *(fault.text for fault in self.broken)]

    @property
    def accepted(self) -> list[str]:
        """What is wrong, in the words of an `AuthorityPinned` that accepts it."""
        tables = [f"table {lapse.table} {lapse.pinned} {lapse.found}" for lapse in self.behind]
        return tables + [f"log {fault.log}" for fault in self.broken]

    def refuse(self) -> None:
        """Return only if all is well. TableRolledBack, LogBroken: it is not; the message says all of it."""
        if not self.behind and not self.broken:
            return
        text = (
            f"{'; '.join(self.sentences)}. Restore the newest backup of the whole database, or, if it was put back on "
            "purpose, start once with --accept-audit-loss, which records that in the log"
        )
        raise TableRolledBack(text, table=self.behind[0].table) if self.behind else LogBroken(text)


def check_pins(found: LookBack, manifests: Sequence[ManifestRecord]) -> Verdict:
    """Compare verified manifests with what earlier lives pinned. found: read before the manifests were."""
    return Verdict(behind=tuple(lapses(found.pins, manifests)), broken=found.faults)


@asynccontextmanager
async def pinning(
    *, authority: Authority, journal: Journal, clock: Clock, found: LookBack, accept_loss: bool
) -> AsyncIterator[Pins]:
    """Compare the tables with what earlier lives pinned; pin them at once, and once more on the way out.

    found: read before the authority was loaded. accept_loss: go on all the same. The first pin then says what was
    accepted, and earlier logs no longer count.
    TableRolledBack, LogBroken: the tables or the logs were put back or changed while no replica ran; the message says
    which. Unavailable: the pin could not be made durable.
    """
    verdict = check_pins(found, authority.manifests)
    if not accept_loss:
        verdict.refuse()
    accepted = verdict.accepted
    if accepted:
        log.warning("authority.accepted", accepted=accepted)
    since = journal.record.log if accepted else found.open_from
    pins = Pins(authority=authority, journal=journal, clock=clock, since=since)
    await pins.write(accepted=accepted)
    try:
        yield pins
    finally:
        await pins.attempt()


class Pins:
    """The duty of writing pins. Made by `pinning`."""

    def __init__(self, *, authority: Authority, journal: Journal, clock: Clock, since: int) -> None:
        self._authority = authority
        self._journal = journal
        self._clock = clock
        self._since = since
        self._manifests = authority.manifests
        self._entries = 0
        self._at = 0.0

    async def run(self) -> None:
        """Write pins as they become due, until cancelled. What fails is tried again a second later."""
        while True:
            await self._clock.sleep(EVERY_S)
            if self._due():
                await self.attempt()

    async def attempt(self) -> None:
        """Write a pin if anything was written since the last one; log what fails."""
        if not self._written() and not self._moved():
            return
        try:
            await self.write()
        except BrokerError as error:
            log.warning("authority.not_pinned", error=error.message)

    async def write(self, *, accepted: Sequence[str] = ()) -> None:
        """Write a pin of the tables as this replica stands on them. Errors as in `Journal.commit`."""
        manifests = self._authority.manifests
        size, roots = self._journal.subtrees
        entry = AuthorityPinned(
            at=self._clock.now(),
            actor="system",
            manifests=tuple(map(text_of, manifests)),
            tree_size=size,
            subtrees=tuple(base64.b64encode(root).decode() for root in roots),
            since=self._since,
            accepted=tuple(accepted),
        )
        await self._journal.commit((entry,))
        self._manifests = manifests
        self._entries = self._journal.counters.entries
        self._at = self._clock.monotonic()

    def _due(self) -> bool:
        overdue = self._clock.monotonic() - self._at >= QUIET_S
        return self._moved() or self._written() >= (1 if overdue else ENTRIES_BETWEEN)

    def _moved(self) -> bool:
        return self._manifests != self._authority.manifests

    def _written(self) -> int:
        return self._journal.counters.entries - self._entries
