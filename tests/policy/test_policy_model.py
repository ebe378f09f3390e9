"""The policy against a naive scan over every grant, and what adding and removing a grant may do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.book import GrantBook
from broker.policy.decision import Decision
from broker.policy.entitlements import compile_entitlements
from broker.policy.explain import explain
from broker.policy.patterns import parse_pattern
from storage.records.grants import GrantRecord, Window

UNHURRIED = settings(deadline=None)
"""A busy machine is no failure."""

# Few segments, instants and addresses, so that patterns, expiries and conditions collide often.
START = datetime(2026, 1, 4, 23, 0, tzinfo=UTC)
INSTANTS = st.integers(0, 8).map(lambda n: START + timedelta(minutes=15 * n))
SEGMENTS = st.sampled_from(["a", "b", "c"])
TOKENS = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)
PATTERNS = st.builds(
    lambda front, last: "/".join([*front, last]),
    st.lists(SEGMENTS | st.just("*"), max_size=4),
    SEGMENTS | st.sampled_from(["*", "**"]),
)
WINDOWS = st.builds(
    lambda days, start, length: Window(days=tuple(days), start_min=start, end_min=min(start + length, 1440)),
    st.sets(st.sampled_from([1, 6, 7]), min_size=1),
    st.sampled_from([0, 15, 60, 1380, 1395]),
    st.integers(1, 60),
)
SOURCES = st.sampled_from(["10.0.0.1", "10.0.1.1", "::ffff:10.0.0.1", "2001:db8::1", None])
CIDRS = st.sampled_from(["10.0.0.0/24", "10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24"])
SUBJECTS = ("worker:w", "worker:other", "group:g", "group:h", "group:other")
WORKER, GROUPS = "w", ("g", "h")


@st.composite
def grant_lists(draw: st.DrawFn) -> list[GrantRecord]:
    ids = draw(st.lists(st.integers(0, 99), unique=True, max_size=12))
    return [draw(grants(str(number))) for number in ids]


@st.composite
def grants(draw: st.DrawFn, grant_id: str) -> GrantRecord:
    max_ttl_s = draw(st.integers(1, 3))
    return GrantRecord(
        id=grant_id,
        subject=draw(st.sampled_from(SUBJECTS)),
        pattern=draw(PATTERNS),
        ttl_s=draw(st.integers(1, max_ttl_s)),
        max_ttl_s=max_ttl_s,
        source_cidrs=tuple(draw(st.lists(CIDRS, max_size=2))),
        windows=tuple(draw(st.lists(WINDOWS, max_size=2))),
        created_by="root",
        created_at=START,
        expires_at=draw(st.none() | INSTANTS),
    )


def mine(all_grants: Iterable[GrantRecord]) -> list[GrantRecord]:
    subjects = {f"worker:{WORKER}", *(f"group:{group}" for group in GROUPS)}
    return [grant for grant in all_grants if grant.subject in subjects]


def naive_match(pattern: str, token: str) -> bool:
    wild = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
    return re.fullmatch(wild, token) is not None


def naive_holds(grant: GrantRecord, now: datetime, source: str | None) -> bool:
    if grant.expires_at is not None and not now < grant.expires_at:
        return False
    if grant.source_cidrs:
        if source is None:
            return False
        address = ip_address(source.removeprefix("::ffff:"))
        if not any(address in ip_network(cidr) for cidr in grant.source_cidrs):
            return False
    minute = now.hour * 60 + now.minute
    inside = [now.isoweekday() in w.days and w.start_min <= minute < w.end_min for w in grant.windows]
    return not inside or any(inside)


def naive_choice(all_grants: list[GrantRecord], token: str, now: datetime, source: str | None) -> GrantRecord | None:
    live = [g for g in mine(all_grants) if naive_match(g.pattern, token) and naive_holds(g, now, source)]
    ever = datetime(9999, 1, 1, tzinfo=UTC)
    live.sort(key=lambda g: g.id)
    live.sort(key=lambda g: (g.max_ttl_s, g.ttl_s, g.expires_at or ever), reverse=True)
    return live[0] if live else None


def generosity(decision: Decision) -> tuple[int, int]:
    return (0, 0) if decision.grant is None else (decision.grant.max_ttl_s, decision.grant.ttl_s)


@UNHURRIED
@given(grant_lists(), st.lists(TOKENS, min_size=1, max_size=4), st.lists(INSTANTS, min_size=1, max_size=3), SOURCES)
def test_decisions_agree_with_a_naive_scan(
    all_grants: list[GrantRecord], tokens: list[str], instants: list[datetime], source: str | None
) -> None:
    """For any grants, tokens, instants and sources, repeated or not, the chosen grant is that of a plain scan."""
    entitlements = GrantBook(grants=all_grants).for_worker(WORKER, GROUPS)
    for token in tokens * 2:
        for now in instants:
            expected = naive_choice(all_grants, token, now, source)
            decision = entitlements.decide(token, now, source)
            assert decision.grant == expected
            assert (decision.refusal is None) is (expected is not None)


@UNHURRIED
@given(grant_lists(), TOKENS)
def test_coverage_agrees_with_a_naive_scan(all_grants: list[GrantRecord], token: str) -> None:
    """The grants that cover a token are those whose patterns match, each once."""
    covering = compile_entitlements(all_grants).covering(token)
    assert sorted(g.id for g in covering) == sorted(g.id for g in all_grants if naive_match(g.pattern, token))


@UNHURRIED
@given(grant_lists(), st.data(), TOKENS, INSTANTS, SOURCES)
def test_a_changed_book_decides_like_one_made_afresh(
    all_grants: list[GrantRecord], data: st.DataObject, token: str, now: datetime, source: str | None
) -> None:
    """Whatever is added, replaced and removed in between, only the grants that remain count."""
    book, kept = GrantBook(), dict[str, GrantRecord]()
    for grant in all_grants:
        book.put(grant)
        kept[grant.id] = grant
        book.for_worker(WORKER, GROUPS).decide(token, now, source)
        victim = data.draw(st.sampled_from(sorted(kept)))
        if data.draw(st.booleans()):
            book.remove(victim)
            del kept[victim]
        else:
            kept[victim] = data.draw(grants(victim))
            book.put(kept[victim])
        expected = naive_choice(list(kept.values()), token, now, source)
        assert book.for_worker(WORKER, GROUPS).decide(token, now, source).grant == expected
    assert len(book) == len(kept)
    for subject in SUBJECTS:
        held = sorted(grant.id for grant in book.of_subject(subject))
        assert held == sorted(grant.id for grant in kept.values() if grant.subject == subject)


@UNHURRIED
@given(grant_lists().filter(bool), st.data(), TOKENS, INSTANTS, SOURCES)
def test_removing_a_grant_never_allows_more(
    all_grants: list[GrantRecord], data: st.DataObject, token: str, now: datetime, source: str | None
) -> None:
    """Without a grant, a worker is allowed no other token and no longer lease than with it; so adding takes nothing."""
    book = GrantBook(grants=all_grants)
    before = book.for_worker(WORKER, GROUPS).decide(token, now, source)
    book.remove(data.draw(st.sampled_from(all_grants)).id)
    after = book.for_worker(WORKER, GROUPS).decide(token, now, source)
    assert generosity(after) <= generosity(before)


@UNHURRIED
@given(grant_lists(), TOKENS, INSTANTS, SOURCES)
def test_an_explanation_tells_the_decision_and_why(
    all_grants: list[GrantRecord], token: str, now: datetime, source: str | None
) -> None:
    """The explanation decides as the hot path does, and a refusal accounts for each of the worker's grants once."""
    book = GrantBook(grants=all_grants)
    explanation = explain(book, worker=WORKER, groups=GROUPS, token=token, now=now, source=source)
    assert explanation.decision == book.for_worker(WORKER, GROUPS).decide(token, now, source)
    if explanation.decision.grant is not None:
        assert f"grant {explanation.decision.grant.id} " in explanation.lines[0]
    else:
        told = sorted(line.split()[1] for line in explanation.lines if line.startswith("grant "))
        assert told == sorted(grant.id for grant in mine(all_grants))


@UNHURRIED
@given(PATTERNS)
def test_the_drawn_patterns_are_well_formed(pattern: str) -> None:
    """The model's patterns are ones that a grant may hold."""
    assert str(parse_pattern(pattern)) == pattern
