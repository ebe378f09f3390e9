"""Add, remove and test grants. What a grant means is in `broker.policy`."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from broker.admin.asked import NewGrant
from broker.admin.errors import TooMany
from broker.admin.instants import parse_expiry
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.audit.entries import GrantChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import NotFound
from broker.ids import random_id
from broker.policy.book import GrantBook
from broker.policy.errors import excerpt
from broker.policy.explain import Explanation, explain
from broker.policy.names import parse_subject, parse_worker_name, worker_subject
from broker.policy.patterns import parse_pattern
from broker.policy.terms import parse_terms
from storage.port import Delete
from storage.records import GrantRecord

TTL_DEFAULT: Final = timedelta(minutes=5)
MAX_TTL_DEFAULT: Final = timedelta(hours=1)
GRANTS_MAX: Final = 1_000_000


class GrantAdmin:
    """Grants as authority: every change is signed, audited and announced in one commit."""

    def __init__(self, *, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock

    def get(self, grant: str) -> GrantRecord:
        """The grant. NotFound: there is none of that id."""
        record = self._authority.grants.get((grant,))
        if record is None:
            raise NotFound(f"grant {excerpt(grant)}: there is no such grant; `grant list` shows those there are")
        return record

    async def add(self, new: NewGrant, *, actor: str, once: Once = nothing_beside) -> GrantRecord:
        """Allow it from now on, also for a worker or group that is still to come. PolicyRefused: out of bounds."""
        now = self._clock.now()
        ttl_s = int(TTL_DEFAULT.total_seconds()) if new.ttl_s is None else new.ttl_s
        max_ttl_s = max(ttl_s, int(MAX_TTL_DEFAULT.total_seconds())) if new.max_ttl_s is None else new.max_ttl_s
        if new.ttl_s is None:
            ttl_s = min(ttl_s, max_ttl_s)
        terms = parse_terms(
            now=now,
            ttl_s=ttl_s,
            max_ttl_s=max_ttl_s,
            expires_at=parse_expiry(new.expires_at, now),
            source_cidrs=new.source_cidrs,
            windows=new.windows,
        )
        record = GrantRecord(
            id=random_id(),
            subject=str(parse_subject(new.subject)),
            pattern=str(parse_pattern(new.pattern)),
            ttl_s=terms.ttl_s,
            max_ttl_s=terms.max_ttl_s,
            source_cidrs=terms.source_cidrs,
            windows=terms.windows,
            created_by=actor,
            created_at=now,
            expires_at=terms.expires_at,
            previous=new.previous,
        )

        async def decide() -> Plan[GrantRecord]:
            if len(self._authority.grants) >= GRANTS_MAX:
                raise TooMany(f"grants: there are {GRANTS_MAX}, the most; grant to groups and patterns instead")
            entry = self._entry(record, "added", actor)
            return Plan(result=record, entries=(entry,), inserts=(record,), aside=await once(record.id))

        return await carry_out(self._authority, decide)

    async def remove(self, grant: str, *, actor: str, if_match: int | None = None) -> None:
        """End a grant; leases that only it covered are revoked. NotFound; PreconditionFailed."""

        async def decide() -> Plan[None]:
            record = self.get(grant)
            check_revision(f"grant {grant}", record, if_match)
            entry = self._entry(record, "removed", actor)
            return Plan(result=None, entries=(entry,), deletes=(Delete(GrantRecord, record.key, record.rev),))

        return await carry_out(self._authority, decide)

    def test(self, *, worker: str, token: str, source: str | None, previous: bool = False) -> Explanation:
        """Say which grant lets the worker lease the token, or why none does. NotFound: no such worker."""
        known = self._authority.workers.get((parse_worker_name(worker),))
        if known is None:
            raise NotFound(f"worker {worker}: there is no such worker; register it first")
        subjects = {worker_subject(worker), *(f"group:{group}" for group in known.groups)}
        book = GrantBook(grants=(grant for grant in self._authority.grants if grant.subject in subjects))
        return explain(
            book,
            worker=worker,
            groups=known.groups,
            token=token,
            now=self._clock.now(),
            source=source,
            previous=previous,
        )

    def _entry(self, grant: GrantRecord, change: str, actor: str) -> GrantChanged:
        return GrantChanged(
            at=self._clock.now(),
            actor=actor,
            grant=grant.id,
            change=change,
            subject=grant.subject,
            pattern=grant.pattern,
        )
