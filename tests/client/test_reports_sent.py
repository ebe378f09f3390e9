"""What an app says of its values on its way to the broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tokenbroker_client import BadRequest, Broker
from tokenbroker_client.testing import FakeBroker, HandClock
from tokenbroker_client.wire import ReportEvent

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., AbstractAsyncContextManager[Broker]]


async def test_each_report_names_lease_and_version(fake: FakeBroker, dial: Dial) -> None:
    """The three of them arrive as they were made."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        lease.report_rejected()
        lease.report_rate_limited(retry_after_s=30)
        lease.report_ok()
        await fake.wait_for_report("github/ci", ReportEvent.OK)
        assert [(seen.event, seen.version, seen.retry_after_s) for seen in fake.reports] == [
            (ReportEvent.REJECTED, 1, None),
            (ReportEvent.RATE_LIMITED, 1, 30),
            (ReportEvent.OK, 1, None),
        ]
        assert {seen.lease for seen in fake.reports} == {fake.leases[0].lease}


async def test_an_app_that_reports_after_each_call_sends_one_a_second(
    fake: FakeBroker, dial: Dial, eventually: Eventually
) -> None:
    """The same again within a second is left out; another version is news."""
    clock = HandClock()
    async with dial(fake, elapsed=clock) as broker, broker.lease("github/ci") as lease:
        for _ in range(100):
            lease.report_ok()
        await eventually(lambda: len(fake.reports) == 1)
        clock.advance(1.0)
        lease.report_ok()
        await eventually(lambda: len(fake.reports) == 2)
        await fake.rotate("github/ci", "v2")
        await eventually(lambda: lease.version == 2)
        lease.report_ok()
        await eventually(lambda: [seen.version for seen in fake.reports] == [1, 1, 2])


async def test_reports_wait_for_a_connection(fake: FakeBroker, dial: Dial) -> None:
    """What was said while there was none is sent in the next session."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        await fake.stop()
        lease.report_rejected()
        await fake.start()
        seen = await fake.wait_for_report("github/ci", ReportEvent.REJECTED)
        assert seen.version == 1


async def test_a_lease_that_is_over_reports_nothing(fake: FakeBroker, dial: Dial) -> None:
    """Neither after its block nor after a revocation, and neither is an error."""
    async with dial(fake) as broker:
        async with broker.lease("github/ci") as left:
            pass
        left.report_rejected()
        async with broker.lease("github/ci") as revoked:
            changes = revoked.changes()
            await fake.revoke("github/ci")
            await anext(changes)
            revoked.report_rejected()
        async with broker.lease("github/ci") as lease:
            lease.report_ok()
            await fake.wait_for_report("github/ci", ReportEvent.OK)
        assert [seen.event for seen in fake.reports] == [ReportEvent.OK]


@pytest.mark.parametrize("seconds", [-1.0, 86_401.0, float("nan")])
async def test_a_pause_out_of_bounds_is_refused(fake: FakeBroker, dial: Dial, seconds: float) -> None:
    """Before it could become a frame that the broker cannot read."""
    async with dial(fake) as broker, broker.lease("github/ci") as lease:
        with pytest.raises(BadRequest, match="retry_after_s"):
            lease.report_rate_limited(retry_after_s=seconds)
