"""Rotation rows that somebody spoils at the database stop those rotations, and none that come after them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from broker.rotation.conductor import SLOTS
from broker.rotation.terms import NewPolicy

ROOT = "admin:root"
SOUND = "sound/b"


async def test_forged_rows_take_no_turn_from_others(house: Any, config: Path) -> None:
    """More than are worked on at a time, all due before a sound one: it is rotated, and each is named once."""
    forged = [f"forged/t{number:02d}" for number in range(SLOTS + 2)]
    rotations = house.services.rotations.admin
    for token in [*forged, SOUND]:
        await house.put(token, b"one")
        await rotations.set(NewPolicy(token=token, rotator="random", overlap_s=0), actor=ROOT)
    with capture_logs() as lines:
        with sqlite3.connect(config.parent / "broker.db") as database:
            database.execute("UPDATE rotation SET due_at = 1 WHERE token LIKE 'forged/%'")
        database.close()
        await rotations.run(SOUND, version=None, actor=ROOT)

        async def finished() -> bool:
            found = await house.services.rotations.book.state(SOUND)
            return bool(found.last_outcome == "finished")

        await house.until(finished)
    told = sorted(line["token"] for line in lines if line["event"] == "rotation_tampered")
    assert told == forged
    assert [(await house.services.book.token(token)).current for token in forged] == [1] * len(forged)
    assert (await house.services.book.token(SOUND)).current == 2
