"""Deciding among 10 000 grants, against deciding among 10: first of a token not asked for before, then again."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import Figure, alone, in_turns, ratio
from benchmarks.sealing import each_us
from broker.policy.book import GrantBook
from storage.records import GrantRecord

_NOW = datetime(2030, 1, 1, tzinfo=UTC)
_SOURCE = "192.0.2.1"
_GROUPS = tuple(f"g{number}" for number in range(8))
"""Each worker is in all of them, so that every grant is one of its own."""


def _book(grants: int) -> GrantBook:
    return GrantBook(
        grants=[
            GrantRecord(
                id=f"g{number:05}",
                subject=f"group:{_GROUPS[number % len(_GROUPS)]}",
                pattern=f"team-{number}/*/key" if number % 2 else f"team-{number}/**",
                ttl_s=300,
                max_ttl_s=3600,
                source_cidrs=(),
                windows=(),
                created_by="bench",
                created_at=_NOW,
                expires_at=None,
            )
            for number in range(grants)
        ]
    )


def _deciding(grants: int, *, fresh: bool) -> Callable[[], object]:
    """One decision. fresh: of another token each time."""
    granted = _book(grants).for_worker("w", _GROUPS)
    numbers = itertools.count()

    def decide() -> object:
        token = f"team-{grants // 2}/{next(numbers)}/key" if fresh else f"team-{grants // 2}/service/key"
        return granted.decide(token, _NOW, _SOURCE)

    return decide


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """One figure for new tokens, one for known ones."""
    calls = 2_000 if quick else 10_000
    found = []
    for name, fresh in (("a token not asked for before", True), ("a token asked for before", False)):
        many, few = _deciding(10_000, fresh=fresh), _deciding(10, fresh=fresh)
        many_us, few_us = in_turns(7, lambda many=many: each_us(many, calls), lambda few=few: each_us(few, calls))
        found.append(
            Figure(
                name="policy, new token" if fresh else "policy, known token",
                question=f"deciding about {name}, 10 000 grants against 10",
                value=ratio(many_us, few_us),
                unit="times",
                goal=None,
                detail=f"{statistics.median(many_us):.2f} us, {statistics.median(few_us):.2f} us",
            )
        )
    return found


if __name__ == "__main__":
    alone(figures)
