"""Pauses grow, stay bounded, and respect what the broker asks for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenbroker_client import Backoff


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 1e9) | st.none())
def test_a_pause_is_bounded(failures: int, luck: float, asked_s: float | None) -> None:
    """No pause is shorter than asked (up to an hour) nor longer than that and the most of the back-off together."""
    pause_s = Backoff(first_s=0.25, most_s=30, jitter=lambda: luck).pause_s(failures, at_least_s=asked_s)
    floor_s = min(asked_s or 0.0, 3600.0)
    assert floor_s <= pause_s <= floor_s + 30


def test_pauses_double_up_to_the_most() -> None:
    """With the same luck each pause is twice the one before, until the bound."""
    backoff = Backoff(first_s=1, most_s=10, jitter=lambda: 0.5)
    assert [backoff.pause_s(failures) for failures in range(6)] == [0.5, 1, 2, 4, 5, 5]


def test_luck_is_drawn_from_the_whole_span() -> None:
    """Full jitter: clients that lost their broker together do not come back together."""
    pauses = {Backoff(first_s=1, most_s=1).pause_s(0) for _ in range(50)}
    assert len(pauses) > 40
    assert min(pauses) < 0.3
    assert max(pauses) > 0.7
