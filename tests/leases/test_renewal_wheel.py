"""The wheel that says when leases are renewed, against a plain list of moments."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.leases.wheel import Wheel

TICK_S = 0.1


class Moment:
    """What the wheel needs of a held lease."""

    def __init__(self, renew_at: float) -> None:
        self.renew_at = renew_at
        self.slot = 0


def wheel(start: float = 0.0) -> Any:
    return Wheel(tick_s=TICK_S, start=start)


def test_a_lease_comes_out_once_when_its_moment_has_come() -> None:
    """Not before the tick of its moment, at the latest when that moment is past, and never again."""
    turning, held = wheel(), Moment(1.05)
    turning.set(held)
    assert turning.turn(0.9) == []
    assert turning.turn(1.06) == [held]
    assert turning.turn(99.0) == []


def test_setting_again_replaces_the_moment() -> None:
    """The former moment passes without a word."""
    turning, held = wheel(), Moment(1.0)
    turning.set(held)
    held.renew_at = 5.0
    turning.set(held)
    assert turning.turn(4.0) == []
    assert turning.turn(5.0) == [held]


def test_a_cleared_lease_never_comes_out() -> None:
    """Clearing is harmless twice, and for one that was never set."""
    turning, held = wheel(), Moment(1.0)
    turning.clear(held)
    turning.set(held)
    turning.clear(held)
    turning.clear(held)
    assert turning.turn(99.0) == []
    assert turning._slots == {}


def test_a_moment_that_is_past_comes_out_at_the_next_turn() -> None:
    """A lease that was due long ago is not lost behind the wheel."""
    turning = wheel(start=100.0)
    turning.turn(100.0)
    held = Moment(3.0)
    turning.set(held)
    assert turning.turn(100.1 + TICK_S) == [held]


def test_a_clock_that_stands_still_or_steps_back_loses_nothing() -> None:
    """The wheel never turns backwards."""
    turning, held = wheel(), Moment(2.0)
    turning.set(held)
    assert turning.turn(1.0) == []
    assert turning.turn(0.5) == []
    assert turning.turn(2.0) == [held]


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 7), st.floats(0, 60)),
        st.tuples(st.just("clear"), st.integers(0, 7), st.just(0.0)),
        st.tuples(st.just("turn"), st.just(0), st.floats(0, 20)),
    ),
    max_size=60,
)


@given(st.floats(0, 1e6), MOVES)
@settings(max_examples=150, deadline=None)
def test_the_wheel_agrees_with_a_list_of_moments(start: float, moves: list[tuple[str, int, float]]) -> None:
    """Whatever is set, moved, cleared and turned: each lease comes out once, about a tick early or late at most."""
    turning, leases, now = wheel(start), [Moment(0.0) for _ in range(8)], start
    due: dict[int, float] = {}
    for move, which, amount in moves:
        held = leases[which]
        if move == "set":
            held.renew_at = start + amount
            due[which] = max(held.renew_at, now + TICK_S)  # what is past already comes with the next tick
            turning.set(held)
        elif move == "clear":
            due.pop(which, None)
            turning.clear(held)
        else:
            now += amount
            out = [leases.index(given) for given in turning.turn(now)]
            assert len(out) == len(set(out))
            for index in out:
                assert due.pop(index) <= now + 2 * TICK_S
            assert all(moment > now - 2 * TICK_S for moment in due.values()), "nothing is late"
    assert sum(map(len, turning._slots.values())) == len(due)
