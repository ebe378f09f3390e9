"""Every grant in force, by subject.

Reading grants from storage, checking their MACs and following the change feed is done elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from broker.policy.entitlements import Entitlements
from broker.policy.names import group_subject, parse_subject, worker_subject
from broker.policy.rule import Rule, rule_of
from broker.policy.trie import EMPTY, Trie, trie_of
from storage.records.grants import GrantRecord

WORKERS_MAX: Final = 16_384
"""How many workers' entitlements are kept; the one kept longest makes room for the next."""


class _Kept(NamedTuple):
    """A worker's entitlements, and what they were made from."""

    groups: tuple[str, ...]
    subjects: tuple[str, ...]
    tries: tuple[Trie | None, ...]
    entitlements: Entitlements


class GrantBook:
    """The grants of a cluster in memory. A change costs its own path; a decision costs the depth of the token.

    Every method runs without suspending, so a caller on the event loop sees a change whole or not at all.
    """

    def __init__(self, *, grants: Iterable[GrantRecord] = ()) -> None:
        """Begin with many grants at once. PolicyRefused: one is malformed."""
        self._rules: dict[str, Rule] = {}
        for grant in grants:
            self._rules[grant.id] = _checked(grant)
        by_subject: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in self._rules.values():
            by_subject[rule.grant.subject].append(rule)
        self._tries = {subject: trie_of(rules) for subject, rules in by_subject.items()}
        self._kept: dict[str, _Kept] = {}
        self._shared: WeakValueDictionary[tuple[Trie, ...], Entitlements] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._rules)

    def get(self, grant_id: str) -> GrantRecord | None:
        """The grant with this id, or None."""
        rule = self._rules.get(grant_id)
        return None if rule is None else rule.grant

    def of_subject(self, subject: str) -> Iterator[GrantRecord]:
        """The grants of one subject, in no promised order, as they are at this moment."""
        return (rule.grant for rule in self._tries.get(subject, EMPTY))

    def put(self, grant: GrantRecord) -> None:
        """Add a grant, or replace the one with its id. PolicyRefused: it is malformed; nothing changed.

        A record that is held already, or older (by `rev`) than the one held, changes nothing: readers of the
        change feed may bring what is known, and in either order.
        """
        held = self._rules.get(grant.id)
        if held is not None and (held.grant.rev > grant.rev or held.grant == grant):
            return
        rule = _checked(grant)
        self.remove(grant.id)
        self._rules[grant.id] = rule
        self._tries[grant.subject] = self._tries.get(grant.subject, EMPTY).adding(rule)

    def remove(self, grant_id: str) -> None:
        """Forget the grant with this id, if it is held."""
        rule = self._rules.pop(grant_id, None)
        if rule is None:
            return
        subject = rule.grant.subject
        rest = self._tries[subject].removing(rule)
        if rest:
            self._tries[subject] = rest
        else:
            del self._tries[subject]

    def for_worker(self, worker: str, groups: tuple[str, ...]) -> Entitlements:
        """What the worker may lease as a member of these groups, as of this moment.

        The same object as before unless its groups, or a grant of it or of one of them, changed. Ask again for
        each batch of decisions: what was returned earlier does not follow changes.
        """
        kept = self._kept.get(worker)
        if kept is not None and kept.groups == groups and kept.tries == self._tries_of(kept.subjects):
            return kept.entitlements
        subjects = (worker_subject(worker), *map(group_subject, dict.fromkeys(groups)))
        tries = self._tries_of(subjects)
        entitlements = self._of_tries(tuple(trie for trie in tries if trie is not None))
        if kept is None and len(self._kept) >= WORKERS_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[worker] = _Kept(groups, subjects, tries, entitlements)
        return entitlements

    def _of_tries(self, tries: tuple[Trie, ...]) -> Entitlements:
        """One object for all workers with these grants, so that what one of them was told is known for the others."""
        entitlements = self._shared.get(tries)
        if entitlements is None:
            entitlements = self._shared[tries] = Entitlements(tries=tries)
        return entitlements

    def _tries_of(self, subjects: tuple[str, ...]) -> tuple[Trie | None, ...]:
        # Tries never change and compare by identity, so equal tuples mean that none of these subjects changed.
        return tuple(map(self._tries.get, subjects))


def _checked(grant: GrantRecord) -> Rule:
    parse_subject(grant.subject)
    return rule_of(grant)
