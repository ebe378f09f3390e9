"""A rollout's row that somebody spoils at the database stops that rollout, no other one, and no broker."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.authority.errors import RowForged
from broker.rotation.rollouts import NewRollout

ROOT = "admin:root"
FORGED = "github/ci"
SOUND = "sound/b"


def edit(config: Path, statement: str) -> None:
    with sqlite3.connect(config.parent / "broker.db") as database:
        database.execute(statement)
    database.close()


async def begin(house: Any, token: str, **terms: Any) -> None:
    """Start to roll version 2 of the token out."""
    await house.put(token, b"two", stage="pending")
    await house.services.rollouts.start(token, NewRollout(version=2, **terms), actor=ROOT)


@pytest.mark.parametrize("change", ["step = 99", "wait_s = 1e300", "deadline_s = 1e300, state = 'confirming'"])
async def test_a_forged_row_stops_its_own_rollout_alone(house: Any, welcomed: Any, config: Path, change: str) -> None:
    """Its token is named, and not with each look; one that began after it is driven to its end."""
    async with welcomed(house) as worker:
        await worker.lease(FORGED)
        await begin(house, FORGED, bake_s=3600.0, retire="deadline")
        assert (await worker.push())["version"] == 2
        with capture_logs() as lines:
            edit(config, f"UPDATE rollout SET {change} WHERE token = '{FORGED}'")
            await house.put(SOUND, b"one")
            await begin(house, SOUND, bake_s=0.0)

            async def done() -> bool:
                record, _ = await house.services.rollouts.status(SOUND)
                return bool(record.state == "done")

            await house.until(done)
            looked = house.broker.rollouts.looked
            await house.until(lambda: house.broker.rollouts.looked >= looked + 3)
        with pytest.raises(RowForged, match=FORGED):
            await house.services.rollouts.status(FORGED)
        assert await worker.lease(FORGED)
    told = [line["event"] for line in lines if line["log_level"] == "warning" and line.get("token") == FORGED]
    assert sorted(told) == ["rollout_not_told", "rollout_postponed"], "each once"
