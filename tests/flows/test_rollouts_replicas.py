"""A rollout while replicas come: one that has just entered is waited for, however long the step lasts already."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from broker.rotation import tallies
from broker.rotation.rollouts import NewRollout
from storage.port import Commit
from storage.records import RolloutRecord, RolloutTallyRecord

ROOT = "admin:root"
NAME = "github/ci"


async def test_a_replica_that_enters_during_a_long_step_takes_nothing_back(
    open_replica: Any, prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not told of its workers yet, which says nothing of the version."""
    monkeypatch.setattr(tallies, "BACK_S", 1.0)
    async with open_replica("one") as one:
        await prepare(one)
        await one.put(NAME, b"two", stage="pending")
        terms = NewRollout(version=2, wait_s=1.0, bake_s=86_400.0)
        await one.services.rollouts.start(NAME, terms, actor=ROOT)

        async def watched() -> bool:
            return (await one.services.rollouts.status(NAME))[0].answered_at is not None

        await one.until(watched)
        row = await one.storage.get(RolloutRecord, (NAME,))
        long_ago = row.step_at - timedelta(hours=1)
        aged = msgspec.structs.replace(row, rev=row.rev + 1, started_at=long_ago, step_at=long_ago)
        await one.storage.commit(Commit(updates=[one.broker.authority.sign(aged)]))
        async with open_replica("two") as two:

            async def told() -> bool:
                return await two.storage.get(RolloutTallyRecord, (NAME, "two")) is not None

            await two.until(told)
            looked = one.broker.rollouts.looked
            await one.until(lambda: one.broker.rollouts.looked > looked + 1)
            assert (await one.services.rollouts.status(NAME))[0].state == "running"
