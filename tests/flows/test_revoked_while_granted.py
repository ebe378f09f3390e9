"""A lease that another replica revokes between its commit here and the answer to its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from broker.leases.terms import ended
from storage.port import Commit
from storage.records import LeaseRecord


def writes_leases(commit: Commit) -> bool:
    return any(isinstance(row, LeaseRecord) for row in commit.written)


@pytest.fixture
def revoked_elsewhere(house: Any) -> Callable[[int], Any]:
    async def revoked(rev: int) -> LeaseRecord:
        """Revoke the one lease as another replica does, once its revision `rev` is durable and still unconfirmed."""
        row = (await house.leases())[0]
        assert row.rev == rev
        over = ended(row, state="revoked", reason="elsewhere", now=house.broker.clock.now(), retention_s=60.0)
        await house.storage.inner.commit(Commit(updates=[over], announce=[(LeaseRecord.table.name, over.key)]))
        await house.settled()
        return over

    return revoked


@pytest.mark.parametrize("held", [False, True], ids=["new", "asked for again"])
async def test_its_worker_hears_of_it_behind_the_value(
    house: Any, welcomed: Any, revoked_elsewhere: Callable[[int], Any], held: bool
) -> None:
    """The value that was on its way is followed by the revocation, and the lease is held no longer."""
    async with welcomed(house) as worker:
        if held:
            await worker.lease("github/ci")
        house.storage.slow, house.storage.echo = writes_leases, asyncio.Event()
        await worker.send(type="lease", id=5, token="github/ci", ttl_s=3600)  # no renewal finds it out
        await house.until(lambda: house.storage.unconfirmed == 1)
        over = await revoked_elsewhere(2 if held else 1)
        house.storage.echo.set()
        granted, revoked = await worker.receive(), await worker.receive()
        assert (granted["type"], granted["lease"]) == ("granted", over.lease)
        assert (revoked["type"], revoked["leases"]) == ("revoked", [over.lease])
        assert over.lease not in house.broker.context.holdings.by_lease
