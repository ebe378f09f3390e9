"""One grant, prepared once so that deciding about it costs little. Finding the grants of a token is in `trie`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from broker.policy.conditions import Conditions, Source, compile_conditions
from broker.policy.decision import Decision, Refusal
from broker.policy.patterns import Pattern, parse_pattern
from storage.records.grants import GrantRecord

Rank = tuple[int, int, timedelta, str]

_FOREVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rule:
    """A grant with its text parsed.

    rank: rules sort by it, the most generous first: longest maximum TTL, longest TTL, latest expiry (none is latest),
    smallest id. Ids are unique, so the order is total. allowed: the answer when this rule decides, made once. always:
    whether it allows the current version at any time and from anywhere, as most grants do.
    """

    grant: GrantRecord
    pattern: Pattern
    expires_at: datetime | None
    conditions: Conditions | None
    rank: Rank
    allowed: Decision
    always: bool

    def refusal(self, now: datetime, source: Source, *, previous: bool = False) -> Refusal | None:
        """Why this grant does not allow its tokens at `now` (aware) from `source`, or None.

        At `expires_at` exactly it is over. previous: whether the previous version is wanted, not the current one.
        """
        if self.expires_at is not None and self.expires_at <= now:
            return Refusal.EXPIRED
        if previous and not self.grant.previous:
            return Refusal.PREVIOUS
        return None if self.conditions is None else self.conditions.refusal(now, source)


def rule_of(grant: GrantRecord) -> Rule:
    """Prepare a grant. PatternRefused, SourcesRefused, WindowsRefused: the record is malformed."""
    conditions = compile_conditions(grant.source_cidrs, grant.windows)
    return Rule(
        grant=grant,
        pattern=parse_pattern(grant.pattern),
        expires_at=grant.expires_at,
        conditions=conditions,
        rank=(-grant.max_ttl_s, -grant.ttl_s, _FOREVER - (grant.expires_at or _FOREVER), grant.id),
        allowed=Decision(grant=grant),
        always=grant.expires_at is None and conditions is None,
    )
