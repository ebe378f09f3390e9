"""Which places of a pool are free, in the order in which they are to be taken: at the least loaded member. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from storage.records import LeaseRecord, PoolRecord, SeatRecord

NO_SEAT: Final = -1
"""The number of a place where a pool bounds nothing."""

T = TypeVar("T")

SeatName = tuple[str, int]
"""A member, and the number of a seat at it."""


class Spot(NamedTuple):
    """A place for one lease. former: the seat's row, which is written anew. over: the lease that had the seat and ran
    out, although its row says that it is live: it is ended by the commit that takes the seat."""

    member: str
    number: int = NO_SEAT
    former: SeatRecord | None = None
    over: LeaseRecord | None = None

    @property
    def name(self) -> SeatName:
        """Its seat."""
        return (self.member, self.number)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seats:
    """The seats of a pool, as one reading found them. live: those taken by live leases, or about to be."""

    rows: Mapping[SeatName, SeatRecord] = field(default_factory=dict)
    live: Collection[SeatName] = ()
    over: Mapping[SeatName, LeaseRecord] = field(default_factory=dict)


def free_spots(
    pool: PoolRecord, members: Sequence[str], seats: Seats, *, reserved: Collection[SeatName] = (), start: int = 0
) -> Iterator[Spot]:
    """The free places of a bounded pool at these members.

    reserved: places that count as taken. start: where equal choices begin, so that replicas which choose at the same
    moment choose differently.
    """
    taken = {*seats.live, *reserved}
    loads = Counter(member for member, _ in taken)
    order = _rotated(members, start)
    numbers = _rotated(range(pool.leases_max), start)
    free = {member: iter([number for number in numbers if (member, number) not in taken]) for member in order}
    while order:
        member = min(order, key=loads.__getitem__)
        number = next(free[member], None)
        if number is None or loads[member] >= pool.leases_max:
            order.remove(member)
            continue
        loads[member] += 1
        name = (member, number)
        yield Spot(member, number, seats.rows.get(name), seats.over.get(name))


def any_spots(members: Sequence[str], loads: Mapping[str, int]) -> Iterator[Spot]:
    """Places of a pool that bounds nothing, without end; none where there are no members. loads: leases of each."""
    counted = Counter(loads)
    while members:
        member = min(members, key=counted.__getitem__)
        counted[member] += 1
        yield Spot(member)


def _rotated(items: Sequence[T], start: int) -> list[T]:
    turn = start % len(items) if items else 0
    return [*items[turn:], *items[:turn]]
