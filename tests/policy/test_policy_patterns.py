"""Patterns: their grammar, and what each wildcard matches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.entitlements import compile_entitlements
from broker.policy.errors import PatternRefused
from broker.policy.patterns import parse_pattern
from storage.records.grants import GrantRecord

UNHURRIED = settings(deadline=None)
"""A busy machine is no failure."""
SEGMENT = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,5}", fullmatch=True) | st.just("*")


@UNHURRIED
@given(st.lists(SEGMENT, max_size=7), SEGMENT | st.just("**"))
def test_a_pattern_reads_back_as_it_was_written(segments: list[str], last: str) -> None:
    """Parsing and printing a well-formed pattern gives the same text."""
    text = "/".join([*segments, last])
    assert str(parse_pattern(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/a", "a//b", "ci-*", "*-ci", "a*b", "***", "**/a", "a/**/b", "**/**", "A", "a b", "a\n", "?"],
)
def test_a_malformed_pattern_is_refused(text: str) -> None:
    """Empty segments, partial wildcards, inner ** and foreign characters are refused."""
    with pytest.raises(PatternRefused):
        parse_pattern(text)


def test_a_pattern_has_at_most_eight_segments() -> None:
    """Eight segments are accepted, nine are refused with the limit named."""
    assert len(parse_pattern("a/" * 7 + "**").segments) == 8
    with pytest.raises(PatternRefused, match="has 9 segments, at most 8"):
        parse_pattern("a/" * 8 + "**")


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("github/ci", ["github/ci"], ["github", "github/c", "github/ci/x", "gitlab/ci"]),
        ("github/*", ["github/ci", "github/a.b"], ["github", "github/ci/x", "x/github/ci"]),
        ("*/ci", ["github/ci"], ["ci", "a/b/ci", "github/cd"]),
        ("github/**", ["github/ci", "github/a/b/c"], ["github", "githubx/ci"]),
        ("*", ["a"], ["a/b"]),
        ("**", ["a", "a/b/c/d/e/f/g/h"], []),
        ("a/*/**", ["a/b/c", "a/b/c/d"], ["a/b", "a"]),
        ("a/b/c/d/e/f/g/**", ["a/b/c/d/e/f/g/h"], ["a/b/c/d/e/f/g"]),
    ],
)
def test_wildcards_stand_for_whole_segments(
    grant: Callable[..., GrantRecord], pattern: str, matching: list[str], others: list[str]
) -> None:
    """* is exactly one segment, a final ** one or more, a literal only itself."""
    entitlements = compile_entitlements([grant(pattern=pattern)])
    assert [token for token in matching + others if entitlements.covering(token)] == matching


@pytest.mark.parametrize("text", ["", "*", "**", "github/*", "github/", "/github", "GITHUB", "a/" * 8 + "a", "a\n"])
def test_what_is_no_token_name_is_covered_by_nothing(grant: Callable[..., GrantRecord], text: str) -> None:
    """Not even a grant for everything covers a text that cannot name a token."""
    patterns = ["**", "*", "github/*", "*/*"]
    entitlements = compile_entitlements([grant(p, pattern=p) for p in patterns])
    assert entitlements.covering(text) == ()
