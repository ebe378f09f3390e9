"""How a lease stood at an instant, and what happened to it when: told by its row, and by many rows page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from broker.clock import FakeClock
from broker.errors import BadRequest
from broker.ids import time_ordered_id
from broker.leases.history import as_of, events_of, live_at
from broker.leases.listing import list_leases, select_leases
from broker.leases.terms import ended
from broker.leases.timeline import timeline
from broker.leases.versions import PAST_MAX, applied, failed, given
from storage.catalog import open_storage
from storage.port import Commit
from storage.records import LeaseRecord
from storage.records.leases import LeaseReport

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def lease(name: str = "a", granted: float = 0, token: str = "db/app", worker: str = "ci-1") -> LeaseRecord:
    return LeaseRecord(
        lease=name,
        token=token,
        version=1,
        worker=worker,
        session="s",
        instance="one",
        grant="g",
        state="live",
        ttl_s=600.0,
        granted_at=at(granted),
        expires_at=at(granted + 600),
        max_expires_at=at(granted + 600),
        due_at=at(granted + 600),
    )


def told(row: LeaseRecord | None) -> LeaseRecord:
    assert row is not None
    return row


def storied() -> LeaseRecord:
    """Granted at 0, pushed version 2 at 10 and applied at 11, version 3 at 20 and failed at 21, revoked at 30."""
    row = given(lease(), 2, now=at(10), pushed=True)
    row = told(applied(row, 2, now=at(11)))
    row = given(row, 3, now=at(20), pushed=True)
    row = told(failed(row, 3, "no room", now=at(21)))
    return ended(row, state="revoked", reason="leaked", now=at(30), retention_s=60)


@pytest.mark.parametrize(
    ("when", "version", "acked", "trouble"),
    [(0, 1, 0, ""), (9, 1, 0, ""), (10, 2, 0, ""), (11, 2, 2, ""), (20, 3, 2, ""), (21, 3, 2, "no room")],
)
def test_a_lease_is_shown_as_it_stood(when: float, version: int, acked: int, trouble: str) -> None:
    """The version that it had at that instant, and what had been said by then; of its end nothing."""
    row = as_of(storied(), at(when))
    assert (row.version, row.acked_version, row.ack_failed) == (version, acked, trouble)
    assert (row.state, row.ended_at, row.reason) == ("live", None, "")


def test_nothing_of_later_is_shown() -> None:
    """A report and an acknowledgement that came afterwards are not in it."""
    row = storied()
    reported = LeaseReport(event="rejected", at=at(25), version=3)
    row = as_of(LeaseRecord(**{**_fields(row), "report": reported}), at(15))
    assert (row.report, row.acked_at, [each.version for each in row.past]) == (None, at(11), [1])


def _fields(row: LeaseRecord) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_a_version_that_was_forgotten_is_none() -> None:
    """Of more changes than a row keeps, the first are shown as version 0, and not as another one."""
    row = lease()
    for version in range(2, PAST_MAX + 4):
        row = given(row, version, now=at(version), pushed=True)
    assert as_of(row, at(1)).version == 0
    assert as_of(row, at(PAST_MAX + 2)).version == PAST_MAX + 2
    assert events_of(row, at(90))[0][:2] == (at(0), "granted")
    assert events_of(row, at(90))[0].version == 0


def test_it_was_live_from_its_grant_to_its_end() -> None:
    """At the instant of the grant it was, at that of the end no more."""
    row = storied()
    assert [live_at(row, at(when)) for when in (-1, 0, 29, 30)] == [False, True, True, False]


def test_everything_that_happened_is_told_in_order() -> None:
    """Grant, pushes, what the worker said of each, and the end with its reason."""
    row = told(failed(storied(), 3, "no room", now=at(31)))
    assert [(event.at, event.event, event.version, event.detail) for event in events_of(row, at(90))] == [
        (at(0), "granted", 1, ""),
        (at(10), "pushed", 2, ""),
        (at(11), "applied", 2, ""),
        (at(20), "pushed", 3, ""),
        (at(30), "revoked", 3, "leaked"),
        (at(31), "wipe_failed", 3, "no room"),
    ]


def test_an_expiry_is_told_at_its_instant() -> None:
    """Whenever it was swept, or not yet."""
    swept = ended(lease(), state="expired", reason="", now=at(700), retention_s=60)
    for row in (swept, lease()):
        assert [(event.at, event.event) for event in events_of(row, at(900))][-1] == (at(600), "expired")


async def _pages(storage: Any, limit: int, **options: Any) -> list[Any]:
    given_ = {"token": None, "worker": None, "since": at(0), "until": at(90_000), "now": at(90_000), **options}
    events: list[Any] = []
    after = None
    while True:
        page = await timeline(storage, after=after, limit=limit, **given_)
        assert len(page.events) <= limit
        events += page.events
        after = page.next
        if after is None:
            return events


async def test_pages_of_any_size_tell_the_same(tmp_path: Any) -> None:
    """Of overlapping lives, long and short, each event is told exactly once, in order of time."""
    rows = []
    for number in range(300):
        granted = number * 7919 % 3000
        row = lease(time_ordered_id(at(granted)), granted, "db/app" if number % 3 else "db/web")
        for version in range(2, 2 + number % 4):
            row = given(row, version, now=at(granted + version * (1 + number % 89)), pushed=True)
        if number % 10 < 7:
            row = ended(row, state="released", reason="", now=at(granted + 300 + number), retention_s=9)
        rows.append(row)
    async with open_storage(f"sqlite:///{tmp_path / 'x.db'}") as storage:
        await storage.commit(Commit(inserts=rows))
        whole = await _pages(storage, 1000)
        assert len(whole) > 800
        assert [event.at for event in whole] == sorted(event.at for event in whole)
        for limit in (1, 7, 100):
            assert await _pages(storage, limit) == whole
        part = await _pages(storage, 10, token="db/web", since=at(500), until=at(800))
        assert part == [event for event in whole if event.token == "db/web" and at(500) <= event.at <= at(800)]


def _made_first(asked: float, took: float) -> LeaseRecord:
    """A lease whose value was made for it: it has had its id since it was asked for."""
    return lease(time_ordered_id(at(asked)), asked + took)


async def test_a_lease_whose_value_took_a_while_hides_no_other(tmp_path: Any) -> None:
    """Later ids may be granted before it; each event is told in its place, on pages of any size, up to any instant."""
    rows = [_made_first(0, 9), _made_first(1, 0), _made_first(2, 5), _made_first(3, 0)]
    async with open_storage(f"sqlite:///{tmp_path / 'x.db'}") as storage:
        await storage.commit(Commit(inserts=rows))
        for until, granted in ((90_000, [1, 3, 7, 9]), (5, [1, 3]), (7, [1, 3, 7])):
            for limit in (1, 2, 100):
                events = await _pages(storage, limit, until=at(until))
                assert [event.at for event in events if event.event == "granted"] == [at(each) for each in granted]


async def test_the_longest_lease_is_live_until_its_end(tmp_path: Any) -> None:
    """Also where its value took a while: who lists or revokes what is live finds it to the last moment."""
    row = _made_first(0, 10)
    end = row.granted_at + timedelta(days=31)
    row = msgspec.structs.replace(row, expires_at=end, max_expires_at=end, due_at=end)
    async with open_storage(f"sqlite:///{tmp_path / 'x.db'}") as storage:
        await storage.commit(Commit(inserts=[row]))
        for instant, found in ((end - timedelta(seconds=1), 1), (end, 0)):
            assert len((await list_leases(storage, FakeClock(), at=instant)).records) == found


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
async def test_leases_of_a_value_are_paged_as_one_list(tmp_path: Any, limit: int) -> None:
    """Those of the token itself and those of a pool that has its value, in the order of granting, each once."""
    names = (("db/app", ""), ("pool", "db/app"), ("db/app", "db/app"), ("pool", "db/web"), ("db/web", ""))
    rows = []
    for number in range(40):
        token, member = names[number * number % 11 % 5]
        rows.append(msgspec.structs.replace(lease(time_ordered_id(at(number)), number, token), member=member))
    async with open_storage(f"sqlite:///{tmp_path / 'x.db'}") as storage:
        await storage.commit(Commit(inserts=rows))
        found: list[LeaseRecord] = []
        after = None
        while True:
            page = await select_leases(storage, {}, token="db/app", after=after, limit=limit)
            assert len(page.records) <= limit
            found += page.records
            after = page.next
            if after is None:
                break
        assert [row.lease for row in found] == [row.lease for row in rows if "db/app" in {row.token, row.member}]


async def test_a_made_up_cursor_is_refused(tmp_path: Any) -> None:
    """One of another list begins nowhere."""
    async with open_storage(f"sqlite:///{tmp_path / 'x.db'}") as storage:
        with pytest.raises(BadRequest):
            await timeline(storage, token=None, worker=None, since=at(0), until=at(1), now=at(1), after=("x",), limit=5)
