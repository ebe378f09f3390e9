"""Review access: for each worker and each grant that applies to it, when it was last of use, and what deserves a look.

Also which grants nobody has used for long. When something was used is `broker.uses`'; removing a grant is `grants`'.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from broker.admin.asked import AccessTerms, Finding
from broker.admin.stored import Stored
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BadRequest
from broker.policy.names import group_subject, worker_subject
from broker.policy.rule import rule_of
from broker.policy.trie import trie_of
from broker.spans import show_instant
from broker.uses import SYSTEM, Uses
from storage.port import PAGE_MAX, Page
from storage.records import AdminRecord, GrantRecord, LeaseRecord, SessionRecord, TokenRecord, UseRecord, WorkerRecord
from storage.table import Key

UNUSED_MIN: Final = timedelta(days=1)
"""The shortest span that something can be called unused for."""
_TOKENS_S: Final = 60.0
"""How long it is remembered which patterns match no token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """One worker and one grant that applies to it, or None where there is none. connected: it is now, as far as that
    had to be asked: where its last use is not recent."""

    worker: WorkerRecord
    grant: GrantRecord | None
    used: UseRecord | None
    seen: UseRecord | None
    connected: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantUse:
    """A grant, and when anybody last used it."""

    grant: GrantRecord
    last_at: datetime | None


class AccessReview:
    """Reads books and storage; changes nothing."""

    def __init__(self, *, authority: Authority, stored: Stored, uses: Uses, clock: Clock) -> None:
        self._authority = authority
        self._stored = stored
        self._uses = uses
        self._clock = clock
        self._indexed: tuple[int, dict[str, list[GrantRecord]]] = (-1, {})
        self._by_name: tuple[int, list[WorkerRecord]] = (-1, [])
        self._tokenless: tuple[int, float, frozenset[str]] = (-1, 0.0, frozenset())

    async def since(self) -> datetime:
        """Since when uses are kept. Unavailable: storage does not answer."""
        row = await self._stored.get(UseRecord, SYSTEM)
        return self._clock.now() if row is None else row.first_at

    async def lines(self, terms: AccessTerms, *, after: Key | None, limit: int) -> tuple[list[Access], Key | None]:
        """One page, by worker and then by grant, and what the next one begins behind.

        Costs what the page holds, and once a minute a walk over all tokens. BadRequest: `after` is of no such page.
        """
        if after is None:
            await self._uses.flush()
        pairs = list(islice(self._pairs(terms, _place(after)), limit + 1))
        page, more = pairs[:limit], len(pairs) > limit
        since, used = await self.since(), await self._used(page)
        tokenless = await self._patterns_without_token()
        connected: dict[str, bool] = {}
        lines = []
        for worker, grant in page:
            seen = used.get((_actor(worker), ""))
            if worker.name not in connected:
                connected[worker.name] = not self._is_recent(seen, terms) and await self._is_connected(worker)
            use = None if grant is None else used.get((_actor(worker), grant.id))
            found = (
                *self._of_worker(worker, seen, terms, since, connected=connected[worker.name]),
                *self._of_grant(worker, grant, use, terms, since, tokenless),
            )
            lines.append(
                Access(
                    worker=worker,
                    grant=grant,
                    used=use,
                    seen=seen,
                    connected=connected[worker.name],
                    findings=found,
                )
            )
        last = None if not more else (page[-1][0].name, "" if page[-1][1] is None else page[-1][1].id)
        return lines, last

    async def admins(self, *, after: Key | None, limit: int) -> Page[AdminRecord]:
        """One page of the admins, by name."""
        names = (record for record in self._authority.admins if after is None or record.key > after)
        page = heapq.nsmallest(limit + 1, names, key=lambda record: record.name)
        return Page(records=page[:limit], next=page[limit - 1].key if len(page) > limit else None)

    async def last_uses(self, admins: Sequence[AdminRecord]) -> dict[str, datetime]:
        """When these admins last asked for something, those of whom that is known."""
        rows = await self._stored.get_many(UseRecord, [(f"admin:{record.name}", "") for record in admins])
        return {row.actor.removeprefix("admin:"): row.last_at for row in rows.values()}

    async def unused(
        self, unused: timedelta, *, after: str | None, limit: int
    ) -> tuple[list[GrantUse], str | None, datetime]:
        """One page, by id, of the grants that are that old, that nobody used for that long and that no live lease rests
        on; what the next one begins behind; and since when uses are kept.

        Walks all uses and leases on record. BadRequest: uses have not been kept for that long, so that nobody can tell;
        or it is less than a day.
        """
        await self._uses.flush()
        now, since = self._clock.now(), await self.since()
        if unused < UNUSED_MIN:
            raise BadRequest("unused: name a day or more; a use is written down a while after it happened")
        if since > now - unused:
            raise BadRequest(
                f"unused: uses are on record since {show_instant(since)}, so nobody can tell what was "
                "not used for that long; name a shorter time, or wait"
            )
        last, live = await self._last_of_grants(), await self._of_live_leases()
        old = (
            GrantUse(grant=grant, last_at=last.get(grant.id))
            for grant in self._authority.grants
            if (after is None or grant.id > after)
            and grant.id not in live
            and max(grant.created_at, last.get(grant.id, grant.created_at)) <= now - unused
        )
        page = heapq.nsmallest(limit + 1, old, key=lambda each: each.grant.id)
        return page[:limit], page[limit - 1].grant.id if len(page) > limit else None, since

    async def _last_of_grants(self) -> dict[str, datetime]:
        last: dict[str, datetime] = {}
        after: Key | None = None
        while True:
            page = await self._stored.select(UseRecord, after=after, limit=PAGE_MAX)
            for row in page.records:
                if row.grant:
                    last[row.grant] = max(row.last_at, last.get(row.grant, row.last_at))
            after = page.next
            if after is None:
                return last

    async def _of_live_leases(self) -> set[str]:
        """The grants that live leases rest on: used, although a long one is renewed seldom, and a use of the last
        minute may be on no record yet.
        """
        now, live = self._clock.now(), set[str]()
        after: Key | None = None
        while True:
            page = await self._stored.select(LeaseRecord, where={"state": "live"}, after=after, limit=PAGE_MAX)
            live.update(row.grant for row in page.records if row.expires_at > now)
            after = page.next
            if after is None:
                return live

    def _pairs(
        self, terms: AccessTerms, after: tuple[str, str] | None
    ) -> Iterator[tuple[WorkerRecord, GrantRecord | None]]:
        """Workers that the terms name, by name, each with its grants by id, or with none; behind `after`."""
        workers = self._workers()
        begin = 0 if after is None else bisect_left(workers, after[0], key=_name_of)
        for worker in islice(workers, begin, None):
            if not _is_named(worker, terms):
                continue
            none = True
            for grant in self._grants_of(worker):
                none = False
                if after is None or (worker.name, grant.id) > after:
                    yield worker, grant
            if none and (after is None or (worker.name, "") > after):
                yield worker, None

    def _workers(self) -> list[WorkerRecord]:
        """By name. All workers are put in order once after each change of one, and not for each page."""
        generation, workers = self._by_name
        if generation != self._authority.workers.generation:
            workers = sorted(self._authority.workers, key=_name_of)
            self._by_name = (self._authority.workers.generation, workers)
        return workers

    def _grants_of(self, worker: WorkerRecord) -> Iterator[GrantRecord]:
        """By id, likewise."""
        generation, index = self._indexed
        if generation != self._authority.grants.generation:
            by_subject: defaultdict[str, list[GrantRecord]] = defaultdict(list)
            for grant in sorted(self._authority.grants, key=_id_of):
                by_subject[grant.subject].append(grant)
            index = dict(by_subject)
            self._indexed = (self._authority.grants.generation, index)
        subjects = (worker_subject(worker.name), *map(group_subject, dict.fromkeys(worker.groups)))
        return heapq.merge(*(index.get(subject, ()) for subject in subjects), key=_id_of)

    async def _used(self, page: Sequence[tuple[WorkerRecord, GrantRecord | None]]) -> dict[Key, UseRecord]:
        wanted: dict[Key, None] = {}
        for worker, grant in page:
            wanted[_actor(worker), ""] = None
            if grant is not None:
                wanted[_actor(worker), grant.id] = None
        keys, rows = list(wanted), dict[Key, UseRecord]()
        for start in range(0, len(keys), PAGE_MAX):
            rows.update(await self._stored.get_many(UseRecord, keys[start : start + PAGE_MAX]))
        return rows

    def _is_recent(self, seen: UseRecord | None, terms: AccessTerms) -> bool:
        return seen is not None and self._clock.now() - seen.last_at < terms.unused

    async def _is_connected(self, worker: WorkerRecord) -> bool:
        page = await self._stored.select(
            SessionRecord, index="worker", prefix=(worker.name,), where={"ended_at": None}, limit=1
        )
        return bool(page.records)

    def _of_worker(
        self, worker: WorkerRecord, seen: UseRecord | None, terms: AccessTerms, since: datetime, *, connected: bool
    ) -> Iterator[Finding]:
        now = self._clock.now()
        if worker.disabled:
            yield "worker_disabled"
        if worker.expires_at is not None and worker.expires_at <= now + terms.expiring:
            yield "worker_expired" if worker.expires_at <= now else "worker_expiring"
        if not connected:
            if seen is None:
                yield "never_connected"
            if now - (max(worker.created_at, since) if seen is None else seen.last_at) >= terms.unused:
                yield "not_connected"
        if terms.third_party is not None and terms.third_party in worker.labels:
            yield "third_party"

    def _of_grant(  # noqa: PLR0917 - what is known of one line
        self,
        worker: WorkerRecord,
        grant: GrantRecord | None,
        use: UseRecord | None,
        terms: AccessTerms,
        since: datetime,
        tokenless: frozenset[str],
    ) -> Iterator[Finding]:
        if grant is None:
            yield "no_grant"
            return
        now = self._clock.now()
        if use is None:
            yield "never_used"
        begun_at = max(grant.created_at, worker.created_at, since) if use is None else use.last_at
        # A lease may last so long from its last use on, and be used all the time.
        held = timedelta() if use is None else timedelta(seconds=grant.max_ttl_s)
        if now - begun_at >= max(terms.unused, held):
            yield "unused"
        if grant.expires_at is not None and grant.expires_at <= now + terms.expiring:
            yield "expired" if grant.expires_at <= now else "expiring"
        if grant.pattern in tokenless:
            yield "no_token"

    async def _patterns_without_token(self) -> frozenset[str]:
        """The patterns of grants that match no token, as of a minute ago at most."""
        generation, mono = self._authority.grants.generation, self._clock.monotonic()
        if self._tokenless[0] == generation and mono - self._tokenless[1] < _TOKENS_S:
            return self._tokenless[2]
        by_pattern = {grant.pattern: grant for grant in self._authority.grants}
        # Beside the loop: of a hundred thousand patterns it takes a second.
        trie = await asyncio.to_thread(lambda: trie_of(rule_of(grant) for grant in by_pattern.values()))
        without = set(by_pattern)
        after: Key | None = None
        while without:
            page = await self._stored.select(TokenRecord, after=after, limit=PAGE_MAX)
            for token in page.records:
                without.difference_update(rule.grant.pattern for rule in trie.matching(token.name))
            after = page.next
            if after is None:
                break
        self._tokenless = (generation, mono, frozenset(without))
        return self._tokenless[2]


def _id_of(grant: GrantRecord) -> str:
    return grant.id


def _name_of(worker: WorkerRecord) -> str:
    return worker.name


def _actor(worker: WorkerRecord) -> str:
    return f"worker:{worker.name}"


def _is_named(worker: WorkerRecord, terms: AccessTerms) -> bool:
    return (
        terms.worker in (None, worker.name)
        and (terms.group is None or terms.group in worker.groups)
        and (terms.label is None or worker.labels.get(terms.label[0]) == terms.label[1])
    )


def _place(after: Key | None) -> tuple[str, str] | None:
    match after:
        case None:
            return None
        case (str(worker), str(grant)):
            return worker, grant
        case _:
            raise BadRequest("cursor: this is not one of a review; send `next` of the page before, or none")
