"""What workers report of the values they use: seen by the operator, counted, recorded where it is news, and bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.audit.entries import LeaseRejected
from broker.leases.reporting import APART, REPEATED, _is_news
from storage.records.leases import LeaseReport
from tokenbroker_client.wire import ReportEvent

NAME = "github/ci"
OK, REJECTED, LIMITED = ReportEvent.OK, ReportEvent.REJECTED, ReportEvent.RATE_LIMITED


async def report(house: Any, worker: Any, lease: str, event: str, **more: Any) -> Any:
    """Send a report, wait until it was dealt with, and give the lease's row."""
    await worker.send(type="report", lease=lease, event=event, **more)
    await worker.ask("renew", leases=["none"])
    await house.broker.desk.drained()
    return await house.row(lease)


async def test_a_rejection_is_on_record_with_the_version_that_was_used(house: Any, welcomed: Any) -> None:
    """The row, the log and the count have it; no answer comes."""
    async with welcomed(house) as worker:
        lease = (await worker.lease(NAME))["lease"]
        row = await report(house, worker, lease, "rejected")
        assert (row.report.event, row.report.version) == ("rejected", 1)
        entries = [
            (entry.lease, entry.token, entry.version, entry.actor) for entry in await house.entries(LeaseRejected)
        ]
        assert entries == [(lease, NAME, 1, "worker:ci-1")]
        assert house.broker.context.reports[REJECTED] == 1
        assert await worker.silent()


async def test_a_rate_limit_is_seen_and_written_into_no_log(house: Any, welcomed: Any) -> None:
    """The row has how long upstream said to wait."""
    async with welcomed(house) as worker:
        lease = (await worker.lease(NAME))["lease"]
        row = await report(house, worker, lease, "rate_limited", retry_after_s=30)
        assert (row.report.event, row.report.retry_after_s) == ("rate_limited", 30.0)
        assert await house.entries(LeaseRejected) == []


async def test_a_value_that_works_costs_no_write(house: Any, welcomed: Any) -> None:
    """However often `ok` is said of a value without trouble, its row stays and no batch is written."""
    async with welcomed(house) as worker:
        lease = (await worker.lease(NAME))["lease"]
        before, batches = await house.row(lease), house.broker.desk.counts.batches
        for _ in range(50):
            await worker.send(type="report", lease=lease, event="ok")
        assert await report(house, worker, lease, "ok") == before
        assert house.broker.desk.counts.batches == batches
        assert house.broker.context.reports[OK] == 51


async def test_a_flood_of_rejections_is_one_record_and_a_count(house: Any, welcomed: Any) -> None:
    """A thousand of them neither fill the log nor end the session, and none is lost from the count."""
    async with welcomed(house) as worker:
        lease = (await worker.lease(NAME))["lease"]
        for _ in range(1000):
            await worker.send(type="report", lease=lease, event="rejected")
        await report(house, worker, lease, "rejected")
        assert len(await house.entries(LeaseRejected)) == 1
        assert house.broker.context.reports[REJECTED] == 1001
        assert (await worker.ask("renew", leases=[lease]))["gone"] == []


async def test_what_says_nothing_possible_changes_nothing(house: Any, welcomed: Any, prepare: Any) -> None:
    """A lease of another worker, an unknown one, a version that was never sent."""
    await prepare(house, worker="ci-2")
    async with welcomed(house) as worker, welcomed(house, "ci-2") as other:
        lease, foreign = (await worker.lease(NAME))["lease"], (await other.lease(NAME))["lease"]
        before = [await house.row(lease), await house.row(foreign)]
        for name, version in ((foreign, 1), ("unknown", 1), (lease, 2)):
            await worker.send(type="report", lease=name, event="rejected", version=version)
        await worker.ask("renew", leases=["none"])
        await house.broker.desk.drained()
        assert [await house.row(lease), await house.row(foreign)] == before
        assert house.broker.context.reports.total() == 0


@pytest.mark.parametrize(
    "bad", [{"event": "broken"}, {}, {"event": "ok", "version": 0}, {"event": "ok", "retry_after_s": -1}]
)
async def test_a_report_that_cannot_be_read_is_a_bad_frame(house: Any, welcomed: Any, bad: dict[str, Any]) -> None:
    """It is answered without an id, like an acknowledgement that cannot be read."""
    async with welcomed(house) as worker:
        lease = (await worker.lease(NAME))["lease"]
        await worker.send(type="report", lease=lease, **bad)
        answer = await worker.push(within_s=1)
        assert (answer["code"], answer.get("id")) == ("bad_request", None)


async def test_a_report_survives_a_resume(house: Any, welcomed: Any) -> None:
    """The trouble is still to be seen when a later session holds the lease."""
    async with welcomed(house) as worker:
        lease = (await worker.lease(NAME))["lease"]
        await report(house, worker, lease, "rejected")
    async with welcomed(house) as worker:
        await worker.ask("resume", leases=[{"lease": lease, "version": 1}])
        assert (await house.row(lease)).report.event == "rejected"


TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("last", "event", "version", "after", "news"),
    [
        (None, OK, 1, TICK, False),
        (None, REJECTED, 1, TICK, True),
        (None, LIMITED, 1, TICK, True),
        (REJECTED, OK, 1, APART - TICK, False),
        (REJECTED, OK, 1, APART, True),
        (OK, OK, 2, REPEATED, False),
        (OK, REJECTED, 1, TICK, True),
        (LIMITED, REJECTED, 1, TICK, True),
        (REJECTED, REJECTED, 1, REPEATED - TICK, False),
        (REJECTED, REJECTED, 1, REPEATED, True),
        (REJECTED, REJECTED, 2, TICK, True),
        (REJECTED, REJECTED, 3, APART - TICK, False),
        (REJECTED, REJECTED, 3, APART, True),
        (REJECTED, LIMITED, 1, APART - TICK, False),
        (LIMITED, LIMITED, 1, REPEATED, True),
        (REJECTED, REJECTED, 1, -REPEATED, True),
    ],
)
def test_what_is_news(last: ReportEvent | None, event: ReportEvent, version: int, after: timedelta, news: bool) -> None:
    """The first trouble at once, the same again and other news after their pauses, `ok` only after trouble."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    said = None if last is None else LeaseReport(event=last, at=at, version=1)
    assert _is_news(said, event, version, at + after, sent=2) is news
