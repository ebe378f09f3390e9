"""Changes that arrive while a grant is being written: what is confirmed after them is looked at again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.admin.asked import NewVersion
from storage.records import LeaseRecord

ROOT = "admin:root"


@pytest.fixture
def granting(house: Any, welcomed: Any) -> Any:
    """A worker whose grant is decided and not yet written, until the body ends."""

    @asynccontextmanager
    async def begun() -> AsyncIterator[Any]:
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
            await house.put("github/other", b"one")
            await worker.ask("lease", token="github/unknown")
            house.storage.slow = lambda commit: any(isinstance(row, LeaseRecord) for row in commit.inserts)
            house.storage.gate = asyncio.Event()
            await worker.send(type="lease", id=77, token="github/other")
            await house.until(lambda: house.storage.waiting == 1)
            yield worker
            house.storage.gate.set()

    return begun


async def confirm(house: Any) -> None:
    """The feed is applied first, and the grant confirmed then."""
    await house.settled()
    await asyncio.sleep(0.05)
    house.storage.gate.set()


async def test_a_rotation_meanwhile_is_pushed_after_the_grant(house: Any, granting: Any) -> None:
    """The worker is not left with the former value."""
    async with granting() as worker:
        await house.services.putter.put(NewVersion(token="github/other", value=b"two"), actor=ROOT)
        await confirm(house)
        assert (await worker.answer(77))["value"] == "one"
        assert (await worker.push(within_s=1))["value"] == "two"


async def test_a_token_disabled_meanwhile_is_revoked_after_the_grant(house: Any, granting: Any) -> None:
    """The lease that it became ends within a second."""
    async with granting() as worker:
        await house.services.tokens.disable("github/other", actor=ROOT)
        await confirm(house)
        lease = (await worker.answer(77))["lease"]
        assert (await worker.push(within_s=1))["leases"] == [lease]


async def test_a_grant_removed_meanwhile_revokes_what_it_gave(house: Any, granting: Any) -> None:
    """Both leases are over, the one that was held and the one that was on its way."""
    async with granting() as worker:
        await house.services.grants.remove(house.granted.id, actor=ROOT)
        await confirm(house)
        lease = (await worker.answer(77))["lease"]
        over = {name for _ in range(2) for name in (await worker.push(within_s=1))["leases"]}
        assert lease in over
        assert len(over) == 2
        assert {row.state for row in await house.leases()} == {"revoked"}


async def test_a_worker_disabled_meanwhile_keeps_nothing(house: Any, granting: Any) -> None:
    """Its connection is closed, and no lease of it is live, however late it was written."""
    async with granting() as worker:
        await house.services.workers.disable("ci-1", actor=ROOT)
        await confirm(house)
        assert await worker.close_code(within_s=2) == 4403
    assert {row.state for row in await house.leases()} == {"revoked"}
