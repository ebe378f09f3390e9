"""Terms of a grant: bounds of times, networks and windows, and the canonical form they are kept in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.policy.errors import ExpiryRefused, SourcesRefused, TtlRefused, WindowsRefused
from broker.policy.terms import GrantTerms, parse_terms
from storage.records.grants import Window

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MONTH_S = 31 * 86_400


def terms(**fields: Any) -> GrantTerms:
    return parse_terms(**{"now": NOW, "ttl_s": 300, "max_ttl_s": 3600, **fields})


@pytest.mark.parametrize(("ttl_s", "max_ttl_s"), [(1, 1), (1, MONTH_S), (MONTH_S, MONTH_S)])
def test_times_at_their_bounds_are_accepted(ttl_s: int, max_ttl_s: int) -> None:
    """One second and 31 days are both allowed."""
    accepted = terms(ttl_s=ttl_s, max_ttl_s=max_ttl_s)
    assert (accepted.ttl_s, accepted.max_ttl_s) == (ttl_s, max_ttl_s)


@pytest.mark.parametrize(
    ("ttl_s", "max_ttl_s"), [(0, 10), (-1, 10), (11, 10), (0, 0), (1, MONTH_S + 1), (MONTH_S + 1, MONTH_S + 1)]
)
def test_times_outside_their_bounds_are_refused(ttl_s: int, max_ttl_s: int) -> None:
    """A TTL of nothing, above the maximum, or beyond 31 days is refused."""
    with pytest.raises(TtlRefused):
        terms(ttl_s=ttl_s, max_ttl_s=max_ttl_s)


def test_an_expiry_has_to_be_in_the_future() -> None:
    """A grant that would be over when it is made is refused."""
    assert terms(expires_at=NOW + timedelta(microseconds=1)).expires_at is not None
    with pytest.raises(ExpiryRefused):
        terms(expires_at=NOW)


def test_networks_are_kept_in_canonical_text_once_each() -> None:
    """Different spellings of one network, IPv4-mapped ones included, become the same text."""
    spelled = ["10.0.0.0/8", "10.0.0.0/255.0.0.0", "::ffff:10.0.0.0/104", "192.0.2.1", "2001:DB8:0::/32"]
    assert terms(source_cidrs=spelled).source_cidrs == ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32")


@pytest.mark.parametrize(
    "cidr",
    ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "example.com", "fe80::%eth0/64", "1:2/3", "0/0", "10.0.0.0/8 "],
)
def test_a_malformed_network_is_refused(cidr: str) -> None:
    """Host bits, impossible prefixes, names and scopes are refused."""
    with pytest.raises(SourcesRefused, match="CIDR"):
        terms(source_cidrs=[cidr])


def test_at_most_64_networks() -> None:
    """64 networks are accepted, 65 are refused."""
    cidrs = [f"10.{n}.0.0/16" for n in range(65)]
    assert len(terms(source_cidrs=cidrs[:64]).source_cidrs) == 64
    with pytest.raises(SourcesRefused, match="at most 64"):
        terms(source_cidrs=cidrs)


def test_windows_are_kept_with_sorted_days_once_each() -> None:
    """The order and repetition of days make no difference."""
    windows = [Window(days=(5, 1, 1), start_min=0, end_min=1440), Window(days=(1, 5), start_min=0, end_min=1440)]
    assert terms(windows=windows).windows == (Window(days=(1, 5), start_min=0, end_min=1440),)


@pytest.mark.parametrize(
    ("days", "start_min", "end_min"),
    [((), 0, 60), ((0,), 0, 60), ((8,), 0, 60), ((1,), 60, 60), ((1,), 1380, 60), ((1,), -1, 60), ((1,), 0, 1441)],
)
def test_a_malformed_window_is_refused(days: tuple[int, ...], start_min: int, end_min: int) -> None:
    """No day, a day that is none, and an empty, wrapping or overlong span are refused."""
    with pytest.raises(WindowsRefused):
        terms(windows=[Window(days=days, start_min=start_min, end_min=end_min)])


def test_at_most_32_windows() -> None:
    """32 windows are accepted, 33 are refused."""
    windows = [Window(days=(1,), start_min=n, end_min=n + 1) for n in range(33)]
    assert len(terms(windows=windows[:32]).windows) == 32
    with pytest.raises(WindowsRefused, match="at most 32"):
        terms(windows=windows)
