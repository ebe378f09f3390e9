"""A push whose commit is confirmed too late was never sent, whatever its row says: it is sent afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from broker.audit.entries import LeaseRotated
from storage.port import Commit
from storage.records import LeaseRecord

LATE_S = 2.3
"""Longer than a commit may take to be confirmed."""


def writes_leases(commit: Commit) -> bool:
    return any(isinstance(row, LeaseRecord) for row in commit.written)


async def test_a_rotation_that_was_written_but_not_confirmed_is_pushed_when_storage_recovers(
    house: Any, welcomed: Any
) -> None:
    """The row names the version before any value left; the worker gets the value all the same."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        house.storage.slow = writes_leases
        house.storage.late_s = LATE_S
        await house.put("github/ci", b"two")

        async def written() -> bool:
            return (await house.row(lease)).version == 2

        await house.until(written)
        assert worker.pushes == []
        house.storage.late_s = 0.0
        pushed = await worker.push(within_s=6)
        assert (pushed["type"], pushed["lease"], pushed["version"], pushed["value"]) == ("rotated", lease, 2, "two")
        assert await house.entries(LeaseRotated)
        assert (await house.verified()).problems == []


@pytest.mark.parametrize("again", [True, False])
async def test_a_lease_asked_for_again_in_vain_does_not_count_as_sent(house: Any, welcomed: Any, again: bool) -> None:
    """A request that was refused as `unavailable`, and written later, leaves the worker with the version it had."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        house.storage.slow = writes_leases
        house.storage.late_s = LATE_S
        await house.put("github/ci", b"two")
        if again:
            assert (await worker.ask("lease", token="github/ci"))["code"] == "unavailable"
        house.storage.late_s = 0.0
        pushed = await worker.push(within_s=6)
        assert (pushed["lease"], pushed["value"]) == (lease, "two")
