"""When pins are written, and how little of the logs a start reads to find the newest ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from broker.audit.errors import LogBroken
from broker.audit.lookback import look_back
from broker.audit.note import Verifier
from broker.authority.errors import TableRolledBack
from broker.doctor.examining import _authority
from broker.settings import Settings
from broker.vault.root import open_root
from kms.catalog import open_kms
from storage.records import RootRecord


class Counting:
    """A storage that counts the rows it hands out, by table."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.rows: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def select(self, kind: Any, **parts: Any) -> Any:
        page = await self._storage.select(kind, **parts)
        self.rows[kind.table.name] += len(page.records)
        return page


async def read_by_a_start(installation: Any, vkey: str) -> Counter[str]:
    """How many rows are read to find the newest pins."""
    async with installation.open() as storage:
        counting = Counting(storage)
        assert (await look_back(counting, verifier=Verifier(vkey))).faults == ()
    return counting.rows


async def test_a_change_is_pinned_within_a_second(installation: Any, worker: Any) -> None:
    """A changed table is pinned by the duty's next look, with its new revision, whoever changed it."""
    async with installation.life() as broker, installation.life("two") as other:
        await other.authority.commit([], inserts=[worker("ann")])
        await installation.second(other)
        assert (await installation.pins(2))[-1][1].manifests[-1].startswith("worker 2 1 ")
        await broker.authority.refresh([])
        await installation.second(broker)
        assert (await installation.pins(1))[-1][1].manifests[-1].startswith("worker 2 1 ")


async def test_an_idle_broker_writes_no_pins(installation: Any) -> None:
    """While nothing happens, the log does not grow."""
    async with installation.life() as broker:
        await installation.second(broker)
        before = broker.journal.counters.entries
        for _ in range(200):
            await installation.second(broker)
        assert broker.journal.counters.entries == before


async def test_pins_keep_up_with_other_entries(installation: Any, remark: Any) -> None:
    """While other entries are written, there is one pin a minute and no more."""
    async with installation.life() as broker:
        await installation.second(broker)
        before = len(await installation.pins(1))
        for _ in range(180):
            await broker.journal.commit(remark(1))
            await installation.second(broker)
        assert len(await installation.pins(1)) - before == 3


async def test_many_entries_are_pinned_before_the_minute(installation: Any, remark: Any) -> None:
    """After 50 000 entries a pin follows within a second, so that a start has few of them to read."""
    async with installation.life() as broker:
        await installation.second(broker)
        for _ in range(5):
            assert len(await installation.pins(1)) == 2
            await broker.journal.commit(remark(10_000))
            await installation.second(broker)
        assert len(await installation.pins(1)) == 3


async def test_an_orderly_stop_pins_what_is_left(installation: Any, worker: Any) -> None:
    """A change in the last moment is pinned before the log is closed."""
    async with installation.life() as broker:
        await broker.authority.commit([], inserts=[worker("ann")])
    seq, pin = (await installation.pins(1))[-1]
    assert pin.manifests[-1].startswith("worker 2 1 ")
    assert installation.sql("SELECT max(seq) FROM audit_block WHERE log = 1") == [(seq + 1,)]


async def test_a_long_log_costs_no_more_than_a_short_one(installation: Any, remark: Any) -> None:
    """What lies before the newest pin is not read: of 400 blocks a start reads a few."""
    async with installation.life() as broker:
        vkey = broker.journal.vkey
        for _ in range(400):
            await broker.journal.commit(remark(20))
        await installation.signed(broker)
        await broker.pins.write()
        await broker.journal.commit(remark(20))
    assert (await read_by_a_start(installation, vkey))["audit_block"] <= 40


async def test_earlier_lives_cost_nothing(installation: Any) -> None:
    """Logs that a later pin stands for are left alone, whatever the names of the replicas that wrote them."""
    for number in range(30):
        async with installation.life(f"pod-{number}") as broker:
            vkey = broker.journal.vkey
    assert (await read_by_a_start(installation, vkey))["checkpoint"] == 1


async def test_a_replica_that_left_is_remembered(installation: Any, worker: Any) -> None:
    """What one replica pinned holds every other one, though logs with higher numbers were opened before that."""
    async with installation.life("two") as two:
        kept = installation.keep("worker")
        async with installation.life("three"):
            pass
        await two.authority.commit([], inserts=[worker("ann")])
    for _ in range(2):
        installation.put_back("worker", kept)
        with pytest.raises(TableRolledBack, match="of audit log 1 "):
            async with installation.life("one"):
                pass


async def test_a_crash_that_nobody_continued_is_remembered(installation: Any, worker: Any) -> None:
    """A log that was never closed may still be written, so each start looks at it until its replica returns."""
    async with installation.life("two") as two:
        async with installation.life("one"):
            pass
        kept = installation.keep("worker")
        await two.authority.commit([], inserts=[worker("ann")])
        await installation.signed(two)
        copy = await installation.copy(two, "crash.db")
    installation.become(copy)
    installation.put_back("worker", kept)
    with pytest.raises(TableRolledBack, match="of audit log 1 "):
        async with installation.life("one"):
            pass


async def test_a_log_missing_among_others_is_told(installation: Any) -> None:
    """Logs are numbered without gaps, so one that was taken out from between others is noticed."""
    async with installation.life("one"), installation.life("two"), installation.life("three") as broker:
        verifier = Verifier(broker.journal.vkey)
        installation.sql("DELETE FROM audit_log WHERE log = 2")
        async with installation.open() as storage:
            found = await look_back(storage, verifier=verifier)
        assert [fault.text for fault in found.faults] == [
            "audit log 2 is missing, though logs are numbered without gaps"
        ]
        with pytest.raises(LogBroken, match="audit log 2 is missing"):
            async with installation.life("four"):
                pass


async def test_a_replica_may_start_while_others_change_tables(installation: Any, worker: Any) -> None:
    """Pins are read before the tables, so a change in between is no alarm."""
    async with installation.life("one") as one:
        for number in range(5):
            await one.authority.commit([], inserts=[worker(f"w{number}")])
            await installation.second(one)
            async with installation.life("two") as two:
                assert len(two.authority.workers) == number + 1


async def test_the_doctor_says_so_before_a_start_does(installation: Any, worker: Any) -> None:
    """The doctor compares tables with pins like a start, and writes nothing."""
    async with installation.life() as broker:
        kept = installation.keep("worker")
        await broker.authority.commit([], inserts=[worker("ann")])
    key = f"local:{installation.path.with_name('kms.key')}"
    async with installation.open() as storage, open_kms(key) as kms:
        record = await storage.get(RootRecord, ("root",))
        root = await open_root(record=record, kms=[kms], expected_cluster_id=installation.cluster_id)
        settings = Settings.model_validate({"kms": {"keys": [key]}})
        before = [
            finding async for finding in _authority(storage, root, settings, [kms], installation.clock, served=False)
        ]
        assert [finding.state for finding in before] == ["ok"] * len(before)
        installation.put_back("worker", kept)
        [finding] = [
            finding async for finding in _authority(storage, root, settings, [kms], installation.clock, served=False)
        ]
    assert finding.state == "failed"
    assert finding.said.startswith("table worker was put back: it is at revision 1, and entry ")
