"""What is read because something changed, and cannot be read for longer than the pause between two tries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.clock import FakeClock
from broker.leases.terms import ended
from storage.port import Commit
from storage.records import LeaseRecord, TokenRecord
from storage.table import Record


async def disabled(house: Any, lease: str) -> None:
    """The token may be leased no more."""
    await house.services.tokens.disable("github/ci", actor="admin:root")


async def revoked_elsewhere(house: Any, lease: str) -> None:
    """Another replica has revoked the lease."""
    row = await house.row(lease)
    over = ended(row, state="revoked", reason="elsewhere", now=house.broker.clock.now(), retention_s=60.0)
    await house.storage.inner.commit(Commit(updates=[over], announce=[(LeaseRecord.table.name, over.key)]))


@pytest.mark.parametrize(
    ("change", "read", "reason"),
    [(disabled, TokenRecord, "no_current_version"), (revoked_elsewhere, LeaseRecord, "elsewhere")],
)
async def test_what_fails_late_is_tried_again_as_often(
    *, open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any, change: Any, read: type[Record], reason: str
) -> None:
    """The worker hears of it once it can be read, although the failure came after other tries had begun."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            lease = (await worker.ask("lease", token="github/ci", ttl_s=3600))["lease"]  # no renewal finds it out
            house.storage.blind = (read, failing := asyncio.Event())
            await change(house, lease)
            await house.settled()
            await house.until(lambda: house.storage.waiting == 1)
            for _ in range(3):
                await clock.advance(1.5)
            house.storage.blind = None
            failing.set()
            await house.elapse(4)
            assert await worker.push() == {"type": "revoked", "leases": [lease], "reason": reason}
