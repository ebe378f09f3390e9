"""Decisions of one worker: expiry, source, window, and which of several grants decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address

import pytest

from broker.policy.decision import Decision, Refusal
from broker.policy.entitlements import MEMO_PAIRS_MAX, Entitlements, compile_entitlements
from broker.policy.errors import PatternRefused, SourcesRefused, WindowsRefused
from storage.records.grants import GrantRecord, Window

Grant = Callable[..., GrantRecord]
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def decide(*grants: GrantRecord, now: datetime = MONDAY, source: str | None = None) -> Decision:
    return compile_entitlements(grants).decide("github/ci", now, source)


def test_without_a_grant_nothing_is_allowed() -> None:
    """Grants only allow; the absence of one refuses."""
    assert decide().refusal is Refusal.NO_GRANT


def test_the_previous_version_wants_a_grant_that_says_so(grant: Grant) -> None:
    """A more generous grant of the current version is passed over; without another the reason is told."""
    generous, both = grant("a", max_ttl_s=9000), grant("b", previous=True)
    entitlements = compile_entitlements([generous, both])
    assert entitlements.decide("github/ci", MONDAY, None).grant is generous
    assert entitlements.decide("github/ci", MONDAY, None, previous=True).grant is both
    alone = compile_entitlements([generous])
    assert alone.decide("github/ci", MONDAY, None, previous=True).refusal is Refusal.PREVIOUS


def test_a_grant_is_over_at_its_expiry_exactly(grant: Grant) -> None:
    """The last instant before the expiry is allowed, the expiry itself is not."""
    expiring = grant(expires_at=MONDAY)
    assert decide(expiring, now=MONDAY - TICK).grant is expiring
    assert decide(expiring, now=MONDAY).refusal is Refusal.EXPIRED


@pytest.mark.parametrize(
    ("offset", "allowed"),
    [
        (timedelta(hours=8) - TICK, False),
        (timedelta(hours=8), True),
        (timedelta(hours=18) - TICK, True),
        (timedelta(hours=18), False),
        (timedelta(days=1, hours=12), False),
        (timedelta(days=-7, hours=12), True),
        (timedelta(weeks=-3000, hours=12), True),
    ],
)
def test_a_window_includes_its_start_and_excludes_its_end(grant: Grant, offset: timedelta, allowed: bool) -> None:
    """Monday 08:00-18:00 begins at eight sharp and is over at six sharp, in every week, before 1970 too."""
    decision = decide(grant(windows=(Window(days=(1,), start_min=480, end_min=1080),)), now=MONDAY + offset)
    assert decision.allowed is allowed
    assert decision.refusal is (None if allowed else Refusal.WINDOW)


def test_a_window_may_last_to_the_end_of_sunday(grant: Grant) -> None:
    """A window that ends at minute 1440 holds until midnight and not beyond it."""
    sunday = grant(windows=(Window(days=(7,), start_min=0, end_min=1440),))
    assert decide(sunday, now=MONDAY - TICK).allowed
    assert not decide(sunday, now=MONDAY).allowed


def test_windows_are_utc_whatever_zone_the_instant_is_in(grant: Grant) -> None:
    """The same instant, written in another zone, gets the same decision."""
    monday = grant(windows=(Window(days=(1,), start_min=0, end_min=60),))
    assert decide(monday, now=MONDAY.astimezone(timezone(timedelta(hours=-9)))).allowed


def test_any_one_window_suffices(grant: Grant) -> None:
    """A grant with two windows holds in each of them."""
    windows = (Window(days=(1,), start_min=0, end_min=1), Window(days=(2,), start_min=0, end_min=1))
    days = [decide(grant(windows=windows), now=MONDAY + timedelta(days=n)).allowed for n in range(7)]
    assert days == [True, True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::10.1.2.3", False),
        ("10.1.2.3:443", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_a_source_has_to_be_known_and_inside(grant: Grant, source: str | None, allowed: bool) -> None:
    """Only an address inside one of the networks passes; an IPv4-mapped one counts as IPv4."""
    bound = grant(source_cidrs=("10.0.0.0/8", "2001:db8::/32"))
    assert decide(bound, source=source).refusal is (None if allowed else Refusal.SOURCE)


def test_a_mapped_network_means_its_ipv4_network(grant: Grant) -> None:
    """A record that holds an IPv4-mapped network serves the plain IPv4 addresses in it."""
    assert decide(grant(source_cidrs=("::ffff:10.0.0.0/104",)), source="10.1.2.3").allowed


def test_an_address_object_decides_like_its_text(grant: Grant) -> None:
    """A session may parse its source once and pass the object."""
    entitlements = compile_entitlements([grant(source_cidrs=("10.0.0.0/8",))])
    for text in ("10.0.0.1", "::ffff:10.0.0.1", "192.0.2.1"):
        by_text = entitlements.decide("a", MONDAY, text)
        assert entitlements.decide("a", MONDAY, ip_address(text)) == by_text


def test_the_most_generous_grant_decides_in_a_fixed_order(grant: Grant) -> None:
    """Longest maximum TTL, longest TTL, latest expiry (none is latest), smallest id; never the order of input."""
    later, latest = MONDAY + timedelta(days=1), MONDAY + timedelta(days=1) + TICK
    best_first = [
        grant("9", max_ttl_s=7200, ttl_s=10, expires_at=later),
        grant("8", ttl_s=600, expires_at=later),
        grant("6"),
        grant("7"),
        grant("5", expires_at=latest),
        grant("4", expires_at=later),
        grant("3", ttl_s=200),
    ]
    for order in itertools.permutations(best_first):
        assert compile_entitlements(order).covering("a/b") == tuple(best_first)


def test_a_grant_that_does_not_hold_gives_way_to_the_next(grant: Grant) -> None:
    """An expired or unmet grant never hides a less generous one that holds."""
    expired = grant("a", max_ttl_s=9000, expires_at=MONDAY)
    elsewhere = grant("b", max_ttl_s=8000, source_cidrs=("10.0.0.0/8",))
    plain = grant("c", max_ttl_s=7000)
    assert decide(expired, elsewhere, plain, source="192.0.2.1").grant is plain


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_refusal_is_that_of_the_grant_to_mend(grant: Grant, order: tuple[int, ...]) -> None:
    """An unmet condition is told before an expiry, whichever grant is more generous."""
    expired = grant("a", max_ttl_s=(9000, 60)[order[0]], ttl_s=1, expires_at=MONDAY)
    elsewhere = grant("b", max_ttl_s=(9000, 60)[order[1]], ttl_s=1, source_cidrs=("10.0.0.0/8",))
    assert decide(expired, elsewhere, source="192.0.2.1").refusal is Refusal.SOURCE


def test_a_naive_instant_is_never_decided_upon(grant: Grant) -> None:
    """An instant without a zone raises instead of being taken for UTC."""
    naive = datetime(2026, 1, 5, 12)  # noqa: DTZ001 - the mistake under test
    for conditional in (
        grant(expires_at=MONDAY),
        grant(windows=(Window(days=(1,), start_min=0, end_min=1440),)),
    ):
        with pytest.raises(TypeError):
            decide(conditional, now=naive)


def test_a_malformed_record_is_refused_when_compiled(grant: Grant) -> None:
    """A record that no parser would have let in never becomes an entitlement."""
    with pytest.raises(PatternRefused):
        decide(grant(pattern="git*"))
    with pytest.raises(SourcesRefused):
        decide(grant(source_cidrs=("everywhere",)))
    with pytest.raises(WindowsRefused):
        decide(grant(windows=(Window(days=(1,), start_min=5, end_min=5),)))


def remembered(entitlements: Entitlements) -> int:
    return sum(len(rules) for rules in entitlements._memo.values())


def test_the_memo_stays_within_its_bound(grant: Grant) -> None:
    """Leasing ever more tokens never holds more pairs than the bound, and changes no answer."""
    everything, some = grant("a"), grant("b", pattern="t/*", max_ttl_s=60, ttl_s=1)
    entitlements = compile_entitlements([everything, some])
    for number in range(MEMO_PAIRS_MAX):
        assert entitlements.covering(f"t/{number}") == (everything, some)
        assert 0 < remembered(entitlements) <= MEMO_PAIRS_MAX
    assert entitlements.covering("t/0") == (everything, some)


def test_a_token_covered_by_more_grants_than_the_memo_holds_is_still_decided(grant: Grant) -> None:
    """More grants for one token than the memo holds cost time, not memory nor the answer."""
    grants = [grant(f"{n:05}") for n in range(MEMO_PAIRS_MAX + 1)]
    entitlements = compile_entitlements(grants)
    assert entitlements.decide("a", MONDAY, None).grant is grants[0]
    assert remembered(entitlements) == 0


def test_probing_for_names_does_not_fill_the_memo(grant: Grant) -> None:
    """Tokens that nothing covers are not remembered, so they cannot push out those that are."""
    entitlements = compile_entitlements([grant(pattern="mine/*")])
    entitlements.covering("mine/a")
    for number in range(100):
        assert not entitlements.decide(f"yours/{number}", MONDAY, None).allowed
    assert list(entitlements._memo) == ["mine/a"]
