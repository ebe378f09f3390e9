"""Refused leases in the audit log: the first at once, a flood as a count, and nothing lost from the sum."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.errors import NotFound
from broker.leases.context import NotAllowed
from broker.leases.granting import Grant
from broker.leases.refusals import PER_SESSION_MAX, Refusals

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Asker:
    """Who asks, as far as a refusal names it."""

    def __init__(self, session: str = "s1") -> None:
        self.session = session
        self.worker = "w"
        self.actor = "worker:w"


def note(refusals: Refusals, mono: float, token: str = "t", session: str = "s1", error: Any = None) -> Any:
    holder: Any = Asker(session)
    asked = Grant(holder=holder, request_id=1, token=token, ttl_s=None)
    return refusals.note(asked, error or NotAllowed("no_grant"), now=NOW, mono=mono)


def test_the_first_refusal_is_recorded_with_its_reason() -> None:
    """The worker was told `denied`; the log says why."""
    entry = note(Refusals(), 0.0)
    assert (entry.token, entry.session, entry.code, entry.reason, entry.count) == ("t", "s1", "denied", "no_grant", 1)


def test_like_refusals_are_counted_by_the_next_entry() -> None:
    """Ten seconds of silence, then one entry that stands for all since."""
    refusals = Refusals()
    note(refusals, 0.0)
    assert [note(refusals, float(second)) for second in range(1, 10)] == [None] * 9
    assert note(refusals, 10.0).count == 10
    assert note(refusals, 20.0).count == 1


def test_another_token_session_or_code_is_recorded_at_once() -> None:
    """Only like refusals are counted together."""
    refusals = Refusals()
    note(refusals, 0.0)
    assert note(refusals, 0.0, token="u").count == 1
    assert note(refusals, 0.0, session="s2").count == 1
    assert note(refusals, 0.0, error=NotFound("none")).code == "not_found"


def test_a_session_that_asks_for_ever_new_names_is_counted_as_a_whole() -> None:
    """It has so many entries in ten seconds, and the next one says how many there would have been."""
    refusals = Refusals()
    entries = [note(refusals, 0.0, token=f"t{number}") for number in range(1000)]
    assert sum(entry is not None for entry in entries) == PER_SESSION_MAX
    assert note(refusals, 10.0, token="more").count == 1001 - PER_SESSION_MAX
    assert note(refusals, 0.0, session="s2").count == 1


def test_what_is_remembered_is_bounded() -> None:
    """Sessions and names without end do not grow memory; the oldest leave first."""
    refusals = Refusals(bound=10)
    for number in range(1000):
        note(refusals, 0.0, token=f"t{number}", session=f"s{number}")
    assert len(refusals._kinds) == len(refusals._sessions) == 10
    assert note(refusals, 0.0, token="t999", session="s999") is None
    assert note(refusals, 0.0, token="t0", session="s0") is not None


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5)), max_size=200))
def test_the_counts_add_up(asked: list[tuple[int, float]]) -> None:
    """However refusals fall in time: entries and what a last round of entries tells stand for every one of them."""
    refusals, mono, told = Refusals(), 0.0, 0
    for token, pause in asked:
        mono += pause
        entry = note(refusals, mono, token=f"t{token}")
        told += 0 if entry is None else entry.count
    for token in range(4):
        told += note(refusals, mono + 11.0, token=f"t{token}").count
    assert told == len(asked) + 4
