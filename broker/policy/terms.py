"""What a grant may allow, checked when it is made. Whom it is for is in `names`, which tokens in `patterns`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.policy.conditions import parse_network, weekly_spans
from broker.policy.errors import ExpiryRefused, SourcesRefused, TtlRefused, WindowsRefused
from broker.spans import show_instant
from storage.records.grants import Window

TTL_S_MIN: Final = 1
TTL_S_MAX: Final = 31 * 86_400
SOURCE_CIDRS_MAX: Final = 64
WINDOWS_MAX: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantTerms:
    """Checked terms, as a grant record holds them: networks in canonical text, days sorted, neither twice."""

    ttl_s: int
    max_ttl_s: int
    expires_at: datetime | None
    source_cidrs: tuple[str, ...]
    windows: tuple[Window, ...]


def parse_terms(
    *,
    now: datetime,
    ttl_s: int,
    max_ttl_s: int,
    expires_at: datetime | None = None,
    source_cidrs: Sequence[str] = (),
    windows: Sequence[Window] = (),
) -> GrantTerms:
    """Accept the terms of a grant made at `now` (aware, like `expires_at`).

    TtlRefused: not 1 s <= ttl_s <= max_ttl_s <= 31 days. ExpiryRefused: `expires_at` is not after `now`.
    SourcesRefused: over 64 networks, or one malformed. WindowsRefused: over 32 windows, or one malformed.
    """
    _check_ttl(ttl_s, max_ttl_s)
    if expires_at is not None and expires_at <= now:
        raise ExpiryRefused(
            thing=f"expiry {show_instant(expires_at)}",
            limit=f"is not after the broker's time {show_instant(now)}",
            remedy="name a later instant, or none",
        )
    if len(source_cidrs) > SOURCE_CIDRS_MAX:
        raise SourcesRefused(
            thing="source networks",
            limit=f"there are {len(source_cidrs)}, at most {SOURCE_CIDRS_MAX} are allowed",
            remedy="name larger networks, or make a second grant",
        )
    if len(windows) > WINDOWS_MAX:
        raise WindowsRefused(
            thing="windows",
            limit=f"there are {len(windows)}, at most {WINDOWS_MAX} are allowed",
            remedy="give one window several days, or make a second grant",
        )
    return GrantTerms(
        ttl_s=ttl_s,
        max_ttl_s=max_ttl_s,
        expires_at=expires_at,
        source_cidrs=tuple(dict.fromkeys(str(parse_network(text)) for text in source_cidrs)),
        windows=tuple(dict.fromkeys(_canonical(window) for window in windows)),
    )


def _check_ttl(ttl_s: int, max_ttl_s: int) -> None:
    if not TTL_S_MIN <= max_ttl_s <= TTL_S_MAX:
        raise TtlRefused(
            thing=f"maximum TTL of {max_ttl_s} s",
            limit=f"is not {TTL_S_MIN} s to {TTL_S_MAX} s (31 days)",
            remedy="choose a time in between; a lease that runs out can be asked for again",
        )
    if not TTL_S_MIN <= ttl_s <= max_ttl_s:
        raise TtlRefused(
            thing=f"TTL of {ttl_s} s",
            limit=f"is not {TTL_S_MIN} s to the maximum TTL of {max_ttl_s} s",
            remedy="shorten the TTL or raise the maximum",
        )


def _canonical(window: Window) -> Window:
    weekly_spans(window)  # refuses what is malformed
    return Window(days=tuple(sorted(set(window.days))), start_min=window.start_min, end_min=window.end_min)
