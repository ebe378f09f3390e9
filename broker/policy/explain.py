"""Say in words which grant allows a lease, or why none does.

For operators only: a worker learns nothing but "denied".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice, takewhile
from typing import Final

from broker.policy.book import GrantBook
from broker.policy.conditions import DAY_MIN, Source, minute_of_week, parse_source
from broker.policy.decision import Decision, Refusal
from broker.policy.entitlements import Entitlements
from broker.policy.names import group_subject, parse_token_name, worker_subject
from broker.policy.patterns import ANY_ONE
from broker.policy.rule import Rule
from broker.spans import show_instant
from storage.records.grants import GrantRecord, Window

LINES_MAX: Final = 50
LISTED_MAX: Final = 4
"""How many networks or windows one line names before it counts the rest."""

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """The decision, and 1 to 50 lines: the one grant that allows it, or every near miss, the nearest first."""

    decision: Decision
    lines: tuple[str, ...]


def explain(
    book: GrantBook,
    *,
    worker: str,
    groups: tuple[str, ...],
    token: str,
    now: datetime,
    source: Source,
    previous: bool = False,
) -> Explanation:
    """Decide as `Entitlements.decide` does, and say why. NameRefused: `token` is no token name.

    Near misses are, in this order: grants that cover the token but have expired or whose conditions are not met,
    subjects without any grant, grants whose pattern does not match. Visits each grant of the worker and its groups.
    """
    parse_token_name(token)
    entitlements = book.for_worker(worker, groups)
    decision = entitlements.decide(token, now, source, previous=previous)
    if decision.grant is not None:
        granted = decision.grant
        line = f"{_named(granted)} allows it: {granted.ttl_s} s at a time, at most {granted.max_ttl_s} s"
        return Explanation(decision=decision, lines=(line,))
    subjects = tuple(dict.fromkeys((worker_subject(worker), *map(group_subject, groups))))
    near_misses = chain(
        _unmet(entitlements.rules_covering(token), now, source, previous),
        (f"no grant is for {subject}" for subject in subjects if not any(book.of_subject(subject))),
        _mismatched((grant for subject in subjects for grant in book.of_subject(subject)), entitlements, token),
    )
    lines = tuple(islice(near_misses, LINES_MAX + 1))
    if len(lines) > LINES_MAX:
        lines = (*lines[: LINES_MAX - 1], "and further near misses; list the grants of these subjects to see them")
    return Explanation(decision=decision, lines=lines)


def _unmet(rules: Iterable[Rule], now: datetime, source: Source, previous: bool) -> Iterator[str]:
    for rule in rules:
        refusal = rule.refusal(now, source, previous=previous)
        if refusal is not None:
            yield f"{_named(rule.grant)} {_why(rule.grant, refusal, now, source)}"


def _why(grant: GrantRecord, refusal: Refusal, now: datetime, source: Source) -> str:
    if refusal is Refusal.SOURCE:
        address = parse_source(source)
        found = "the source address is unknown" if address is None else f"{address} is outside"
        return f"serves only sources in {_few(grant.source_cidrs)}; {found}"
    if refusal is Refusal.WINDOW:
        day, minute = divmod(minute_of_week(now), DAY_MIN)
        windows = _few([_window(window) for window in grant.windows])
        return f"serves only within {windows} UTC; it is {_DAYS[day]} {_hour(minute)}"
    if refusal is Refusal.PREVIOUS:
        return "allows the current version only"
    assert grant.expires_at is not None, "only a grant with an expiry is refused as expired"
    return f"expired at {show_instant(grant.expires_at)}"


def _mismatched(grants: Iterable[GrantRecord], entitlements: Entitlements, token: str) -> Iterator[str]:
    covering = {grant.id for grant in entitlements.covering(token)}
    rest = (grant for grant in grants if grant.id not in covering)

    segments = token.split("/")

    def farness(grant: GrantRecord) -> tuple[int, str]:
        pairs = zip(grant.pattern.split("/"), segments, strict=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] in (ANY_ONE, pair[1]), pairs))
        return (-alike, grant.id)

    for grant in heapq.nsmallest(LINES_MAX + 1, rest, key=farness):
        yield f"{_named(grant)} does not match {token}"


def _named(grant: GrantRecord) -> str:
    return f"grant {grant.id} ({grant.subject} {grant.pattern})"


def _few(items: Sequence[str]) -> str:
    rest = len(items) - LISTED_MAX
    return ", ".join(items[:LISTED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _window(window: Window) -> str:
    days = " ".join(_DAYS[day - 1] for day in window.days)
    return f"{days} {_hour(window.start_min)}-{_hour(window.end_min)}"


def _hour(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
