"""Explanations: the words for each near miss, their order and their bound."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from broker.policy.book import GrantBook
from broker.policy.decision import Refusal
from broker.policy.errors import NameRefused
from broker.policy.explain import LINES_MAX, Explanation, explain
from storage.records.grants import GrantRecord, Window

Grant = Callable[..., GrantRecord]
NOW = datetime(2026, 1, 5, 7, 5, tzinfo=UTC)


def why(*grants: GrantRecord, token: str = "github/ci", source: str | None = None) -> Explanation:
    return explain(GrantBook(grants=grants), worker="w", groups=("ci",), token=token, now=NOW, source=source)


def test_an_allowed_lease_names_the_grant(grant: Grant) -> None:
    """One line says which grant allows it and for how long."""
    explanation = why(grant("g1", subject="group:ci", pattern="github/*"), grant("g2", max_ttl_s=60, ttl_s=60))
    assert explanation.decision.grant is not None
    assert explanation.lines == ("grant g1 (group:ci github/*) allows it: 300 s at a time, at most 3600 s",)


def test_every_near_miss_is_told_the_nearest_first(grant: Grant) -> None:
    """Unmet grants come in the order of generosity, then subjects without grants, then patterns by likeness."""
    explanation = why(
        grant("a", pattern="gitlab/**"),
        grant("b", pattern="github/deploy"),
        grant("c", expires_at=NOW, max_ttl_s=9000),
        grant("d", source_cidrs=("10.0.0.0/8",), max_ttl_s=8000),
        grant("e", windows=(Window(days=(1, 2), start_min=480, end_min=1440),), max_ttl_s=7000),
        grant("f", subject="worker:somebody-else"),
        source="192.0.2.1",
    )
    assert explanation.decision.refusal is Refusal.SOURCE
    assert explanation.lines == (
        "grant c (worker:w **) expired at 2026-01-05T07:05:00Z",
        "grant d (worker:w **) serves only sources in 10.0.0.0/8; 192.0.2.1 is outside",
        "grant e (worker:w **) serves only within Mon Tue 08:00-24:00 UTC; it is Mon 07:05",
        "no grant is for group:ci",
        "grant b (worker:w github/deploy) does not match github/ci",
        "grant a (worker:w gitlab/**) does not match github/ci",
    )


def test_a_worker_without_grants_is_told_for_each_subject() -> None:
    """Nothing granted at all names every subject that a grant could be for."""
    assert why().lines == ("no grant is for worker:w", "no grant is for group:ci")


@pytest.mark.parametrize("source", [None, "somewhere"])
def test_an_unknown_source_is_called_unknown(grant: Grant, source: str | None) -> None:
    """A missing or unreadable address is not repeated, only named as unknown."""
    (line, *_) = why(grant(source_cidrs=("10.0.0.0/8",)), source=source).lines
    assert line.endswith("serves only sources in 10.0.0.0/8; the source address is unknown")


def test_long_conditions_are_counted_not_listed(grant: Grant) -> None:
    """A line names the first few networks and how many more there are."""
    (line, *_) = why(grant(source_cidrs=tuple(f"10.{n}.0.0/16" for n in range(64)))).lines
    assert "10.3.0.0/16 and 60 more; " in line


@pytest.mark.parametrize(("misses", "cut"), [(LINES_MAX - 1, False), (LINES_MAX, True), (10_000, True)])
def test_at_most_50_lines(grant: Grant, misses: int, cut: bool) -> None:
    """However many grants miss, the answer has at most 50 lines, the last of which says that there is more."""
    explanation = why(*(grant(f"{n}", pattern=f"other/{n}") for n in range(misses)))
    assert len(explanation.lines) == LINES_MAX
    assert explanation.lines[-1].startswith("and further near misses") is cut


def test_a_text_that_is_no_token_name_is_refused(grant: Grant) -> None:
    """Asking about an impossible name says what is wrong with it."""
    with pytest.raises(NameRefused):
        why(grant(), token="github/*")
