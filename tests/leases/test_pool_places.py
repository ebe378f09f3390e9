"""Which places of a pool are free, and in which order they are taken."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from broker.leases.pools.places import NO_SEAT, Seats, any_spots, free_spots
from storage.records import PoolRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = [f"m/{number}" for number in range(6)]
COUNTS = st.integers(min_value=1, max_value=6)
LEASES_MAX = st.integers(min_value=1, max_value=5)
# Beyond the bound of today too: a bound that was lowered leaves such leases behind.
LIVE = st.sets(st.tuples(st.sampled_from(NAMES), st.integers(min_value=0, max_value=8)))
STARTS = st.integers(min_value=0, max_value=2**32)


def pool(members: int, leases_max: int) -> PoolRecord:
    return PoolRecord(
        token="p",
        members=tuple(NAMES[:members]),
        leases_max=leases_max,
        cool_down_s=30,
        witnesses=2,
        created_by="",
        created_at=AT,
        updated_at=AT,
    )


@given(members=COUNTS, leases_max=LEASES_MAX, live=LIVE, start=STARTS)
def test_free_places_fill_each_member_and_no_more(
    members: int, leases_max: int, live: set[tuple[str, int]], start: int
) -> None:
    """All taken together, each member has its bound, or what it had if that was more; no place is given twice."""
    row = pool(members, leases_max)
    spots = list(free_spots(row, row.members, Seats(live=live), start=start))
    names = [spot.name for spot in spots]
    assert len(set(names)) == len(names)
    assert live.isdisjoint(names)
    assert all(0 <= spot.number < leases_max for spot in spots)
    before, after = Counter(member for member, _ in live), Counter(member for member, _ in [*live, *names])
    for member in row.members:
        assert after[member] <= max(leases_max, before[member])
        room = leases_max - len({number for name, number in live if name == member and number < leases_max})
        assert after[member] - before[member] == min(room, max(0, leases_max - before[member]))


@given(members=COUNTS, leases_max=LEASES_MAX, live=LIVE, start=STARTS)
def test_the_least_loaded_member_comes_first(
    members: int, leases_max: int, live: set[tuple[str, int]], start: int
) -> None:
    """Each place is at a member that has as few leases as any that has room."""
    row = pool(members, leases_max)
    loads = Counter(member for member, _ in live)
    spots = list(free_spots(row, row.members, Seats(live=live), start=start))
    for index, spot in enumerate(spots):
        assert loads[spot.member] == min(loads[later.member] for later in spots[index:])
        loads[spot.member] += 1


@given(members=COUNTS, leases_max=LEASES_MAX, live=LIVE, data=st.data())
def test_reserved_places_count_as_taken(
    members: int, leases_max: int, live: set[tuple[str, int]], data: st.DataObject
) -> None:
    """Whoever comes behind those in line gets what is left, and there are as many places in all."""
    row = pool(members, leases_max)
    every = list(free_spots(row, row.members, Seats(live=live)))
    ahead = data.draw(st.integers(min_value=0, max_value=len(every)))
    names = [spot.name for spot in every[:ahead]]
    rest = list(free_spots(row, row.members, Seats(live=live), reserved=names, start=data.draw(STARTS)))
    assert set(names).isdisjoint(spot.name for spot in rest)
    assert len(rest) == len(every) - ahead


def test_without_a_bound_the_least_loaded_member_is_next() -> None:
    """For ever, without a seat; and there is nothing where nobody may be leased."""
    spots = list(islice(any_spots(["a", "b"], {"a": 2}), 4))
    assert [spot.member for spot in spots] == ["b", "b", "a", "b"]
    assert {spot.number for spot in spots} == {NO_SEAT}
    assert list(any_spots([], {})) == []
