"""Lease, renew, release, resume: what a client written from the protocol's description alone gets to see."""

from __future__ import annotations

from typing import Any


async def test_a_granted_frame_has_the_stored_value(house: Any, welcomed: Any) -> None:
    """What was stored arrives, with its terms, and is on record first."""
    async with welcomed(house) as worker:
        granted = await worker.lease("github/ci")
        assert granted["value"] == "s3cret"
        row = await house.row(granted["lease"])
        assert row.state == "live"
