"""Who is next at the desk: lines, turns, and the room that each has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.leases.batch import Batch
from broker.leases.operation import Operation
from broker.leases.renewing import Renewal
from broker.leases.waiting import Waiting


class Errand(Operation):
    """An operation that does nothing."""

    def __init__(self, line: str, number: int = 0, leases: int = 1) -> None:
        super().__init__(line=line, leases_named=leases)
        self.number = number

    def touches(self) -> tuple[str, ...]:
        return ()

    def decide(self, batch: Batch) -> None:
        raise AssertionError("nobody decides here")

    def done(self, batch: Batch) -> None:
        raise AssertionError("nobody decides here")

    def fail(self, error: BrokerError) -> None:
        raise AssertionError("nobody decides here")


@pytest.fixture
def waiting() -> Waiting:
    return Waiting(bound=40)


def fill(waiting: Waiting, line: str, count: int) -> int:
    """Add so many; how many were taken in."""
    return sum(waiting.add(Errand(line, number)) for number in range(count))


def names(taken: list[Any]) -> list[str]:
    return [operation.line for operation in taken]


def test_workers_take_turns(waiting: Waiting) -> None:
    """Whoever asked once is served beside whoever asked a hundred times before."""
    fill(waiting, "greedy", 9)
    fill(waiting, "modest", 1)
    assert names(waiting.take(operations_max=3, leases_max=100)) == ["greedy", "modest", "greedy"]


def test_workers_take_turns_also_where_all_that_waits_is_taken(waiting: Waiting) -> None:
    """What is decided together is decided in this order: a last place at a pool goes to whoever asked for little."""
    fill(waiting, "greedy", 3)
    fill(waiting, "modest", 1)
    fill(waiting, "", 1)
    assert names(waiting.take(operations_max=5, leases_max=5)) == ["", "greedy", "modest", "greedy", "greedy"]
    assert not waiting
    assert fill(waiting, "greedy", 100) == 10


def test_what_one_worker_asks_is_served_in_its_order(waiting: Waiting) -> None:
    """Also what was put back."""
    fill(waiting, "a", 6)
    first = waiting.take(operations_max=4, leases_max=100)
    waiting.put_back(first[1:])
    rest = waiting.take(operations_max=9, leases_max=100)
    assert [first[0].number, *(each.number for each in rest)] == list(range(6))  # type: ignore[attr-defined]  # Errands


def test_the_brokers_own_come_first_and_leave_half_of_the_room(waiting: Waiting) -> None:
    """A revocation waits for no worker, and a hundred thousand of them do not shut workers out."""
    fill(waiting, "a", 5)
    fill(waiting, "", 50)
    assert names(waiting.take(operations_max=8, leases_max=100)) == [""] * 4 + ["a"] * 4
    assert names(waiting.take(operations_max=8, leases_max=4)) == ["", "", "a"]
    assert names(waiting.take(operations_max=8, leases_max=100)) == [""] * 8


def test_a_worker_has_a_quarter_of_the_room_and_the_broker_always_has_some(waiting: Waiting) -> None:
    """However much one worker sends, others and revocations find room."""
    assert fill(waiting, "greedy", 100) == 10
    assert fill(waiting, "", 100) == 100
    assert fill(waiting, "modest", 1) == 1


def test_four_greedy_workers_leave_room_for_a_fifth(waiting: Waiting) -> None:
    """At the bound, those with more than their share are refused, and those with less are not."""
    for greedy in "abcd":
        assert fill(waiting, greedy, 100) == 10
    assert 5 <= fill(waiting, "e", 100) <= 10
    assert fill(waiting, "a", 1) == 0


def test_what_was_taken_in_once_always_finds_room_again(waiting: Waiting) -> None:
    """Fetching what an operation misses must not lose it."""
    fill(waiting, "a", 100)
    (taken,) = waiting.take(operations_max=1, leases_max=100)
    assert waiting.add(Errand("a"))
    waiting.go_on(taken)
    assert len(waiting) == 11


def test_a_take_names_no_more_leases_than_a_commit_can_hold(waiting: Waiting) -> None:
    """Large requests are spread over several commits; one that is too large for any is taken alone."""
    for size in (3, 3, 3, 20):
        waiting.add(Errand("a", leases=size))
    assert [len(waiting.take(operations_max=9, leases_max=8)) for _ in range(3)] == [2, 1, 1]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 9)), max_size=30), st.integers(1, 9))
def test_everything_that_was_added_is_taken_once(added: list[tuple[str, int]], most: int) -> None:
    """Whatever waits, in whichever lines, comes out, each line in its order, and nothing is left."""
    waiting = Waiting(bound=1000)
    errands = [Errand(line, number, leases) for number, (line, leases) in enumerate(added)]
    assert all(map(waiting.add, errands))
    taken: list[Operation] = []
    while waiting:
        batch = waiting.take(operations_max=most, leases_max=10)
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(each.leases_named for each in batch) <= 10
        taken += batch
    assert sorted(map(id, taken)) == sorted(map(id, errands))
    for line in ("", "a", "b", "c"):
        numbers = [each.number for each in taken if each.line == line]  # type: ignore[attr-defined]  # Errands
        assert numbers == sorted(numbers)


def test_renewals_wait_in_their_workers_line() -> None:
    """Also those that the broker makes by itself: a worker with many short leases delays no revocation with them."""

    class Nobody:
        worker = "w"

    renewal = Renewal(holder=Nobody(), leases=("a", "b"))  # type: ignore[arg-type]  # only its name is asked for
    assert (renewal.line, renewal.leases_named) == ("w", 2)
