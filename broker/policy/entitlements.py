"""Decide what one worker may lease: the policy's hot path.

Which grants are the worker's is known by `book`. Whether the worker itself is enabled, and whether the token exists,
are questions for others.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import Final

from broker.policy.conditions import Source
from broker.policy.decision import Decision, Refusal
from broker.policy.names import is_token_name
from broker.policy.rule import Rule, rule_of
from broker.policy.trie import Trie, trie_of
from storage.records.grants import GrantRecord

MEMO_PAIRS_MAX: Final = 4096
"""How many (token, grant) pairs one memo holds before it is dropped whole."""

_BY_RANK: Final = attrgetter("rank")
_REFUSED: Final = {refusal: Decision(refusal=refusal) for refusal in Refusal}


class Entitlements:
    """The grants of one worker, or of all that have the same, as they were at one moment, ready to answer.

    It never changes its mind: a later change of grants is seen only in what `GrantBook.for_worker` returns then.
    """

    __slots__ = ("__weakref__", "_memo", "_pairs", "_tries")

    def __init__(self, *, tries: tuple[Trie, ...]) -> None:
        """tries: the worker's grants, and those of its groups."""
        self._tries = tries
        self._memo: dict[str, tuple[Rule, ...]] = {}
        self._pairs = 0

    def decide(self, token: str, now: datetime, source: Source, *, previous: bool = False) -> Decision:
        """Whether the worker may lease the token at `now` (aware UTC) from `source`, by its most generous live grant.

        When several grants cover the token and none allows it, the refusal is that of the most generous
        unexpired one. A text that is no token name is refused like a token nobody granted. previous: whether the
        previous version is wanted, which only grants that say so allow.
        """
        closest = Refusal.NO_GRANT
        for rule in self._memo.get(token) or self._find(token):
            if rule.always and not previous:
                return rule.allowed
            refusal = rule.refusal(now, source, previous=previous)
            if refusal is None:
                return rule.allowed
            if closest is Refusal.NO_GRANT or closest is Refusal.EXPIRED:
                closest = refusal
        return _REFUSED[closest]

    def covering(self, token: str) -> tuple[GrantRecord, ...]:
        """Every grant whose pattern matches, the most generous first, whether or not it is live."""
        return tuple(rule.grant for rule in self.rules_covering(token))

    def rules_covering(self, token: str) -> tuple[Rule, ...]:
        """The rules behind `covering`, in the same order."""
        return self._memo.get(token) or self._find(token)

    def _find(self, token: str) -> tuple[Rule, ...]:
        if not is_token_name(token):
            return ()
        found = [rule for trie in self._tries for rule in trie.matching(token)]
        rules = tuple(sorted(found, key=_BY_RANK))
        # What nothing covers is not remembered: a worker that probes for names must not push out what it may lease.
        if rules:
            self._remember(token, rules)
        return rules

    def _remember(self, token: str, rules: tuple[Rule, ...]) -> None:
        if self._pairs + len(rules) > MEMO_PAIRS_MAX:
            self._memo.clear()
            self._pairs = 0
        if len(rules) <= MEMO_PAIRS_MAX:
            self._memo[token] = rules
            self._pairs += len(rules)


def compile_entitlements(grants: Iterable[GrantRecord]) -> Entitlements:
    """What these grants, all of one worker and its groups, allow. PolicyRefused: one of them is malformed."""
    return Entitlements(tries=(trie_of(rule_of(grant) for grant in grants),))
