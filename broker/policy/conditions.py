"""From where, and when in the week, a grant may be used. When the grant itself ends is in `rule`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from broker.policy.decision import Refusal
from broker.policy.errors import SourcesRefused, WindowsRefused, excerpt
from storage.records.grants import Window

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Source = str | Address | None
"""A session's source address as somebody knows it; None, or a text that is no address, means unknown."""

DAY_MIN: Final = 1440
WEEK_MIN: Final = 7 * DAY_MIN

_MINUTE: Final = timedelta(minutes=1)
_A_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Networks and weekly spans, ready to be compared. An empty tuple is no condition.

    spans: minutes since Monday 00:00 UTC, start inclusive, end exclusive.
    """

    networks: tuple[Network, ...]
    spans: tuple[tuple[int, int], ...]

    def refusal(self, now: datetime, source: Source) -> Refusal | None:
        """Why these conditions are not met (the source before the window), or None. `now` is aware."""
        if self.networks:
            address = parse_source(source)
            if address is None or not any(address in network for network in self.networks):
                return Refusal.SOURCE
        if self.spans:
            minute = minute_of_week(now)
            if not any(start <= minute < end for start, end in self.spans):
                return Refusal.WINDOW
        return None


def compile_conditions(source_cidrs: Iterable[str], windows: Iterable[Window]) -> Conditions | None:
    """Prepare a grant's conditions; None when it has none. SourcesRefused, WindowsRefused: one is malformed."""
    networks = tuple(parse_network(text) for text in source_cidrs)
    spans = tuple(span for window in windows for span in weekly_spans(window))
    return Conditions(networks=networks, spans=spans) if networks or spans else None


def parse_source(source: Source) -> Address | None:
    """The address, an IPv4-mapped one (::ffff:a.b.c.d) as the IPv4 address that it is; None when unknown."""
    if isinstance(source, str):
        try:
            source = ip_address(source)
        except ValueError:
            return None
    if isinstance(source, IPv6Address):
        return source.ipv4_mapped or source
    return source


def parse_network(text: str) -> Network:
    """Accept a network in CIDR notation, an IPv4-mapped one as IPv4.

    SourcesRefused: not an address and prefix, bits set behind the prefix, or an IPv6 scope.
    """
    try:
        # A scope (%eth0) names an interface of one machine, and Python would ignore it in comparisons.
        network = None if "%" in text else ip_network(text)
    except ValueError:
        network = None
    if network is None:
        raise SourcesRefused(
            thing=f"source network {excerpt(text)}",
            limit="is no IPv4 or IPv6 network in CIDR notation",
            remedy="write it like 10.0.0.0/8 or 2001:db8::/32, with zeros behind the prefix",
        )
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    # A mapped network address has a prefix of at least 96: a shorter one would leave bits set behind it.
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))


def weekly_spans(window: Window) -> tuple[tuple[int, int], ...]:
    """The window as spans of minutes since Monday 00:00 UTC, one for each of its days.

    WindowsRefused: no day, a day outside 1 to 7, or not 0 <= start_min < end_min <= 1440.
    """
    if not window.days or not all(1 <= day <= 7 for day in window.days):
        raise WindowsRefused(
            thing=f"window on days {excerpt(str(window.days))}",
            limit="needs one or more ISO weekdays, 1 (Monday) to 7 (Sunday)",
            remedy="name its days",
        )
    if not 0 <= window.start_min < window.end_min <= DAY_MIN:
        raise WindowsRefused(
            thing=f"window from minute {window.start_min} to {window.end_min}",
            limit=f"is not 0 <= start < end <= {DAY_MIN} minutes of the UTC day",
            remedy="split a window that crosses midnight into two",
        )
    starts = (DAY_MIN * (day - 1) for day in sorted(set(window.days)))
    return tuple((start + window.start_min, start + window.end_min) for start in starts)


def minute_of_week(now: datetime) -> int:
    """Whole minutes since Monday 00:00 UTC, 0 to 10 079. TypeError: `now` is naive, which is a bug of the caller."""
    return (now - _A_MONDAY) // _MINUTE % WEEK_MIN
