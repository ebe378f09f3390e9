"""When grants and workers were last used: noted beside the hot path, written once a minute, by every replica."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker import housekeeping, uses
from storage.catalog import open_storage
from storage.port import Commit
from storage.records import UseRecord


async def written(house: Any) -> dict[tuple[str, str], Any]:
    """What is on record, by actor and grant."""
    page = await house.storage.select(UseRecord)
    return {(row.actor, row.grant): row for row in page.records}


async def test_a_lease_is_a_use_of_its_grant(house: Any, welcomed: Any) -> None:
    """The row names the worker, the grant and the token, and that the worker connected."""
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        await house.broker.uses.flush()
        rows = await written(house)
        assert rows["worker:ci-1", house.granted.id].last_token == "github/ci"
        assert ("worker:ci-1", "") in rows
        assert rows[uses.SYSTEM].first_at <= rows["worker:ci-1", house.granted.id].first_at


async def test_a_lease_that_lives_on_is_used_on(open_house: Any, prepare: Any, welcomed: Any, clock: Any) -> None:
    """Each renewal moves the last use forward, to about a minute, and never the first."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
            began = clock.now()
            await house.elapse(300)
            row = (await written(house))["worker:ci-1", house.granted.id]
            assert row.first_at - began <= timedelta(seconds=uses.FLUSH_S)
            assert clock.now() - row.last_at <= timedelta(seconds=uses.FLUSH_S + 30)


async def test_what_storage_did_not_take_is_written_later(house: Any, welcomed: Any) -> None:
    """A failed flush loses nothing, and a later use of the same grant counts."""
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        house.storage.refuse = lambda commit: any(isinstance(row, UseRecord) for row in commit.inserts)
        await house.broker.uses.flush()
        assert ("worker:ci-1", house.granted.id) not in await written(house)
        house.storage.refuse = lambda commit: False
        await house.broker.uses.flush()
        assert ("worker:ci-1", house.granted.id) in await written(house)


async def test_replicas_agree_on_the_latest(pair: Any, welcomed: Any) -> None:
    """Two that saw the same worker use the same grant leave the later instant, whoever writes last."""
    one, two = pair
    async with welcomed(one) as first, welcomed(two) as second:
        await first.lease("github/ci")
        await second.lease("github/ci")
        use = ("worker:ci-1", one.granted.id)
        await two.broker.uses.flush()
        latest = (await written(two))[use].last_at
        await one.broker.uses.flush()
        assert (await written(one))[use].last_at == latest


async def test_uses_of_what_is_gone_are_forgotten(
    *, open_house: Any, prepare: Any, welcomed: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A while after a worker was removed nothing tells of it; what is there is remembered."""
    monkeypatch.setattr(housekeeping, "_USES_KEPT", timedelta(seconds=20))
    monkeypatch.setattr(housekeeping, "_USES_S", 10.0)
    async with open_house(clock=clock) as house:
        await prepare(house)
        await prepare(house, worker="ci-2")
        for name in ("ci-1", "ci-2"):
            async with welcomed(house, name) as worker:
                await worker.lease("github/ci")
        await house.broker.uses.flush()
        await house.services.workers.remove("ci-1", actor="admin:root")
        await house.settled()
        await house.elapse(40)

        async def forgotten() -> bool:
            return all(actor != "worker:ci-1" for actor, _ in await written(house))

        await house.until(forgotten)
        assert ("worker:ci-2", house.granted.id) in await written(house)


async def test_a_broker_that_stops_writes_what_it_noted(
    *, open_house: Any, prepare: Any, config: Path, serving: Any, wire: Any, tmp_path: Path
) -> None:
    """Stopped in order, it loses not even the last minute."""
    async with open_house() as house:
        who, grant = await prepare(house), house.granted.id
    async with serving(config, tmp_path / "output") as process, wire.dial(process.url) as worker:
        await worker.handshake(who)
        await worker.lease("github/ci")
        assert await process.stop() == 0
    async with open_storage(f"sqlite:///{config.parent / 'broker.db'}") as storage:
        assert await storage.get(UseRecord, ("worker:ci-1", grant)) is not None


async def test_a_row_that_cannot_be_read_keeps_no_other_from_being_written(house: Any, config: Path) -> None:
    """Whoever spoils the use of one grant hides that one, and not that all the others are used."""
    kept = uses.Uses(storage=house.storage, clock=house.broker.clock)
    for number in range(7):
        kept.note(f"worker:w-{number}", "g", "a", 1.0)
    await kept.flush()
    before = {number: await house.storage.get(UseRecord, (f"worker:w-{number}", "g")) for number in range(7)}
    _edit(config, "UPDATE use SET last_at = 4611686018427387904 WHERE actor = 'worker:w-3'")
    for number in range(7):
        kept.note(f"worker:w-{number}", "g", "b", 2.0)
    await kept.flush()
    for number in set(range(7)) - {3}:
        row = await house.storage.get(UseRecord, (f"worker:w-{number}", "g"))
        assert (row.last_token, row.first_at) == ("b", before[number].first_at)


async def test_a_use_of_a_clock_that_was_ahead_is_put_right(house: Any) -> None:
    """With the next use: else a grant would look used, and uses unrecorded, until that day has come."""
    clock = house.broker.clock
    ahead = clock.now() + timedelta(days=3650)
    row = UseRecord(actor="worker:w", grant="g", first_at=ahead, last_at=ahead, last_token="a")
    await house.storage.commit(Commit(inserts=[row]))
    kept = uses.Uses(storage=house.storage, clock=clock)
    kept.note("worker:w", "g", "b", clock.monotonic())
    await kept.flush()
    row = await house.storage.get(UseRecord, row.key)
    assert row.first_at == row.last_at <= clock.now()
    assert row.last_token == "b"


def _edit(config: Path, statement: str) -> None:
    with closing(sqlite3.connect(config.parent / "broker.db")) as database, database:
        database.execute(statement)


async def test_uses_in_memory_are_bounded(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a further one is not noted, and one that is known moves on."""
    monkeypatch.setattr(uses, "NOTED_MAX", 2)
    kept = uses.Uses(storage=house.storage, clock=house.broker.clock)
    for number in range(5):
        kept.note(f"worker:w-{number}", "g", "a", 1.0)
    kept.note("worker:w-0", "g", "b", 2.0)
    await kept.flush()
    rows = await written(house)
    assert {actor for actor, grant in rows if grant == "g"} == {"worker:w-0", "worker:w-1"}
    assert rows["worker:w-0", "g"].last_token == "b"
