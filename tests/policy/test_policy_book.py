"""The book of grants: when entitlements are kept, when they are made anew, and what a decision costs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import msgspec
import pytest

from broker.policy import book as book_module
from broker.policy.book import GrantBook
from broker.policy.errors import PatternRefused, PolicyRefused
from storage.records.grants import GrantRecord

Grant = Callable[..., GrantRecord]
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def allowed(book: GrantBook, worker: str = "w", groups: tuple[str, ...] = (), token: str = "a") -> bool:
    return book.for_worker(worker, groups).decide(token, NOW, None).allowed


def test_a_worker_has_its_own_grants_and_those_of_its_groups(grant: Grant) -> None:
    """A grant counts for its subject only, and a worker is not a group of the same name."""
    book = GrantBook(grants=[grant("1", subject="worker:w"), grant("2", subject="group:g")])
    assert allowed(book, "w")
    assert allowed(book, "x", ("g",))
    assert not allowed(book, "x", ("w",))
    assert not allowed(book, "g")
    assert not allowed(book, "x")


def test_leaving_a_group_takes_effect_at_once(grant: Grant) -> None:
    """The groups a worker has at the time of asking decide, not those it had."""
    book = GrantBook(grants=[grant(subject="group:g")])
    assert allowed(book, "w", ("g",))
    assert not allowed(book, "w", ())
    assert allowed(book, "w", ("h", "g", "g"))


def test_entitlements_are_kept_until_a_grant_of_theirs_changes(grant: Grant) -> None:
    """Changes for others keep them; adding, replacing or removing a grant of the worker or its groups does not."""
    book = GrantBook(grants=[grant("1")])
    kept = book.for_worker("w", ("g",))
    book.put(grant("2", subject="worker:x"))
    book.put(grant("3", subject="group:other"))
    book.remove("2")
    book.put(grant("1"))
    assert book.for_worker("w", ("g",)) is kept
    for change in (
        lambda: book.put(grant("4", subject="group:g")),
        lambda: book.put(grant("4", subject="group:g", ttl_s=1)),
        lambda: book.put(grant("4", subject="worker:x")),
        lambda: book.remove("1"),
    ):
        before = book.for_worker("w", ("g",))
        change()
        assert book.for_worker("w", ("g",)) is not before


def test_a_subject_whose_last_grant_went_and_came_back_is_noticed(grant: Grant) -> None:
    """Removing the only grant of a subject and adding one again never revives what was kept from before."""
    book = GrantBook(grants=[grant("1", pattern="old")])
    assert allowed(book, token="old")
    book.remove("1")
    book.put(grant("2", pattern="new"))
    assert not allowed(book, token="old")
    assert allowed(book, token="new")


def test_replacing_a_grant_may_move_it_to_another_subject(grant: Grant) -> None:
    """A replaced grant counts for its new subject and pattern only."""
    book = GrantBook(grants=[grant("1", subject="worker:w")])
    book.put(grant("1", subject="worker:x", rev=2))
    assert (allowed(book, "w"), allowed(book, "x"), len(book)) == (False, True, 1)


def test_an_older_record_never_replaces_a_newer_one(grant: Grant) -> None:
    """A late reader of an earlier revision cannot widen a grant that was narrowed since."""
    book = GrantBook(grants=[grant("1", pattern="a", rev=2)])
    book.put(grant("1", pattern="**", rev=1))
    assert not allowed(book, token="b")


def test_a_malformed_record_changes_nothing(grant: Grant) -> None:
    """A record that cannot be read is refused, and the grant it would replace stays in force."""
    book = GrantBook(grants=[grant("1")])
    with pytest.raises(PatternRefused):
        book.put(grant("1", pattern="a*", rev=2))
    with pytest.raises(PolicyRefused):
        book.put(grant("2", subject="everybody"))
    assert allowed(book)
    assert len(book) == 1


def test_removing_what_is_not_there_changes_nothing(grant: Grant) -> None:
    """A removal may be told twice."""
    book = GrantBook(grants=[grant("1"), grant("2")])
    book.remove("1")
    book.remove("1")
    assert [g.id for g in book.of_subject("worker:w")] == ["2"]
    assert book.get("1") is None
    assert book.get("2") == grant("2")


def test_entitlements_given_out_earlier_do_not_follow_changes(grant: Grant) -> None:
    """What was asked for before a change answers from before it, even for tokens it never saw; asking again sees it."""
    book = GrantBook(grants=[grant("1", pattern="*")])
    before = book.for_worker("w", ())
    book.put(grant("2", pattern="a/*"))
    book.remove("1")
    assert before.decide("a", NOW, None).allowed
    assert not before.decide("a/b", NOW, None).allowed


def test_only_so_many_workers_are_kept(grant: Grant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the one kept longest makes room, and its decisions stay the same."""
    monkeypatch.setattr(book_module, "WORKERS_MAX", 3)
    book = GrantBook(grants=[grant(subject="group:g")])
    for number in range(10):
        assert allowed(book, f"w{number}", ("g",))
    assert list(book._kept) == ["w7", "w8", "w9"]
    assert allowed(book, "w0", ("g",))


def steps(action: Callable[[], Any]) -> int:
    """How many lines of Python an action runs: a cost that no machine or load changes."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def filled(grant: Grant, count: int, groups: int) -> GrantBook:
    """`count` grants dealt out to `groups` groups and as many workers, of every shape of pattern."""
    shapes = ("team{n}/svc/*", "team{n}/**", "*/svc{n}/key", "team{n}/svc{n}/key")
    return GrantBook(
        grants=[
            grant(
                f"g{n}",
                subject=f"{'worker' if n % 2 else 'group'}:s{n // 2 % groups}",
                pattern=shapes[n // 3 % len(shapes)].format(n=n),
            )
            for n in range(count)
        ]
    )


def test_a_first_decision_costs_the_same_with_any_number_of_grants(grant: Grant) -> None:
    """A worker nobody asked about before is decided in as many steps among 10 000 grants as among 100."""
    books = [filled(grant, 100, 10), filled(grant, 10_000, 1_000), filled(grant, 10_000, 10)]
    few, many, crowded = (
        steps(lambda book=book: allowed(book, "s1", ("s1", "s2", "s3"), "team7/svc/none")) for book in books
    )
    assert few == many
    assert crowded < few + 20


def test_a_change_costs_its_own_path_only(grant: Grant) -> None:
    """Adding and removing a grant takes as many steps in a large book as in a small one."""

    def change(book: GrantBook) -> None:
        book.put(grant("x", subject="group:s1", pattern="team1/other/*"))
        book.remove("x")

    small, large = filled(grant, 100, 10), filled(grant, 10_000, 10)
    assert steps(lambda: change(small)) == steps(lambda: change(large))


def test_many_wildcards_cost_at_most_two_ways_a_segment(grant: Grant) -> None:
    """Grants of every mixture of literals and * under one token visit 2 ** depth branches, not more."""
    mixtures = ["/".join("a" if n >> bit & 1 else "*" for bit in range(8)) for n in range(256)]
    book = GrantBook(grants=[grant(f"{n:03}", pattern=pattern) for n, pattern in enumerate(mixtures)])
    assert len(book.for_worker("w", ()).covering("a/a/a/a/a/a/a/a")) == 256
    assert steps(lambda: book.for_worker("w", ()).covering("a/a/a/a/a/a/a/b")) < 15 * 512


def test_a_record_comes_out_as_it_went_in(grant: Grant) -> None:
    """The grant that a decision names is the stored record, MAC and revision included."""
    stored = msgspec.structs.replace(grant("1"), mac=b"m" * 32, rev=7)
    book = GrantBook()
    book.put(stored)
    assert book.for_worker("w", ()).decide("a", NOW, None).grant is stored
