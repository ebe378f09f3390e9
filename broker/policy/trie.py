"""Rules by the segments of their patterns, so that finding those of a token follows its depth, not their number.

A trie never changes: adding or removing a rule gives another one that shares all but one path with it. So whoever holds
a trie holds a consistent view, and "has anything changed?" is a comparison of identities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from broker.policy.patterns import ANY_DEPTH, ANY_ONE
from broker.policy.rule import Rule


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trie:
    """The rules whose patterns end here, and tries of the rest by their next segment (a literal, `*` or `**`)."""

    here: tuple[Rule, ...]
    children: Mapping[str, Trie]

    def __bool__(self) -> bool:
        """Whether it holds any rule."""
        return bool(self.here or self.children)

    def __iter__(self) -> Iterator[Rule]:
        """Every rule in it, in no promised order."""
        yield from self.here
        for child in self.children.values():
            yield from child

    def matching(self, token: str) -> list[Rule]:
        """The rules whose patterns match a token name, in no promised order.

        Visits at most 2 ** depth tries (literal or `*` at each of at most 8 segments), however many rules there are.
        A literal child can never be called `*`, because a token name has no such segment.
        """
        found: list[Rule] = []
        level = [self]
        for segment in token.split("/"):
            below: list[Trie] = []
            for trie in level:
                if (deep := trie.children.get(ANY_DEPTH)) is not None:
                    found += deep.here
                if (literal := trie.children.get(segment)) is not None:
                    below.append(literal)
                if (star := trie.children.get(ANY_ONE)) is not None:
                    below.append(star)
            level = below
        for trie in level:
            found += trie.here
        return found

    def adding(self, rule: Rule) -> Trie:
        """This trie and one rule more, at the cost of copying each node on the rule's path."""
        return self._along(rule.pattern.segments, lambda here: (*here, rule))

    def removing(self, rule: Rule) -> Trie:
        """This trie without that very rule, at the same cost. Branches that become empty are gone."""
        return self._along(rule.pattern.segments, lambda here: tuple(kept for kept in here if kept is not rule))

    def _along(self, path: tuple[str, ...], edit: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> Trie:
        if not path:
            return replace(self, here=edit(self.here))
        children = dict(self.children)
        if child := children.pop(path[0], EMPTY)._along(path[1:], edit):
            children[path[0]] = child
        return replace(self, children=children)


EMPTY: Final = Trie(here=(), children={})


def trie_of(rules: Iterable[Rule], depth: int = 0) -> Trie:
    """Many rules at once, each visited once per segment. depth: how many segments lead here."""
    here: list[Rule] = []
    branches: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        segments = rule.pattern.segments
        if len(segments) == depth:
            here.append(rule)
        else:
            branches[segments[depth]].append(rule)
    children = {segment: trie_of(below, depth + 1) for segment, below in branches.items()}
    return Trie(here=tuple(here), children=children)
