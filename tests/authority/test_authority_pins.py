"""What was put back while nobody ran: tables with their manifests, with or without the log that pinned them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker.audit.errors import LogBroken
from broker.audit.verify import verify_live
from broker.authority.errors import TableRolledBack
from broker.errors import StartRefused, Tampered
from storage.port import Delete
from storage.records import AUTHORITY, WorkerRecord

ALL = sorted(kind.table.name for kind in AUTHORITY)


@pytest.fixture
async def removed(installation: Any, worker: Any) -> dict[str, Any]:
    """One life of a broker in which ann came (revision 2) and went (revision 3); the table as it was with her."""
    return await live(installation, worker)


@pytest.fixture(params=["stopped", "crashed"])
async def ended(installation: Any, worker: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The same, once after an orderly stop, once after a crash that came when the removal was pinned and signed."""
    return await live(installation, worker, crash=request.param == "crashed")


async def live(installation: Any, worker: Any, *, crash: bool = False) -> dict[str, Any]:
    async with installation.life() as broker:
        await broker.authority.commit([], inserts=[worker("ann")])
        kept: dict[str, Any] = installation.keep("worker")
        await broker.authority.commit([], deletes=[Delete(WorkerRecord, ("ann",), 1)])
        await installation.signed(broker)
        copy = await installation.copy(broker, "crash.db")
    if crash:
        installation.become(copy)
    return kept


async def starts(installation: Any, **options: Any) -> None:
    async with installation.life(**options):
        pass


async def test_a_fresh_cluster_pins_every_table_before_it_serves(installation: Any) -> None:
    """The first start passes, and the first thing in its log is where all authority tables stood."""
    await starts(installation)
    seq, pin = (await installation.pins(1))[0]
    assert seq == 1
    assert sorted(text.split()[:3] for text in pin.manifests) == [[table, "1", "0"] for table in ALL]


async def test_what_nobody_touched_starts(installation: Any, ended: dict[str, Any]) -> None:
    """A restart passes, after an orderly stop and after a crash."""
    await starts(installation)


async def test_changes_after_the_last_pin_do_not_stop_a_start(installation: Any, worker: Any) -> None:
    """A crash between a change and its pin leaves tables that are ahead of the log, which is right."""
    async with installation.life() as broker:
        await installation.signed(broker)
        await broker.authority.commit([], inserts=[worker("ann")])
        copy = await installation.copy(broker, "crash.db")
    installation.become(copy)
    async with installation.life() as broker:
        assert ("ann",) in broker.authority.workers


async def test_a_table_put_back_with_its_manifest_is_refused(installation: Any, ended: dict[str, Any]) -> None:
    """The refusal names the table, the pinned and the found revision, and the remedies; again and again."""
    installation.put_back("worker", ended)
    for _ in range(3):
        with pytest.raises(
            TableRolledBack, match=r"table worker was put back: it is at revision 2, and entry "
        ) as caught:
            await starts(installation)
        assert caught.value.table == "worker"
        assert "pins revision 3. Restore the newest backup" in caught.value.message
        assert "--accept-audit-loss" in caught.value.message


async def test_every_table_put_back_is_named(installation: Any, worker: Any, grant: Any) -> None:
    """Several tables that went back are named together."""
    async with installation.life() as broker:
        kept = {table: installation.keep(table) for table in ("worker", "grant_")}
        await broker.authority.commit([], inserts=[worker("ann"), grant("g1")])
    for table, rows in kept.items():
        installation.put_back(table, rows)
    with pytest.raises(TableRolledBack, match=r"table grant_ was put back: .*; table worker was put back: "):
        await starts(installation)


async def test_another_state_of_the_pinned_revision_is_refused(installation: Any, worker: Any) -> None:
    """A table out of a copy that another broker went on with has the right revision and the wrong rows."""
    async with installation.life() as broker:
        copy = await installation.copy(broker, "fork.db")
        await broker.authority.commit([], inserts=[worker("ann")])
    other = dataclasses.replace(installation, path=copy)
    async with other.life() as broker:
        await broker.authority.commit([], inserts=[worker("eve")])
    installation.put_back("worker", other.keep("worker"))
    with pytest.raises(
        TableRolledBack, match="table worker is not as it was: another state of its revision 2 is pinned"
    ):
        await starts(installation)


PINNED = "instr(entries, CAST('authority.pinned' AS BLOB)) > 0"
ALTERED = "UPDATE audit_block SET entries = CAST(replace(CAST(entries AS TEXT), '{}', '{}') AS BLOB) WHERE log = 1"
HIDE = {
    "the pin deleted": (
        f"DELETE FROM audit_block WHERE log = 1 AND seq = (SELECT max(seq) FROM audit_block WHERE {PINNED})",
    ),
    "the pin changed": (ALTERED.format("worker 3 0", "worker 2 1"),),
    "its event renamed": (ALTERED.format("authority.pinned", "authority.hidden"),),
    "everything behind the first pin cut off": ("DELETE FROM audit_block WHERE log = 1 AND seq > 1",),
    "the whole log emptied": ("DELETE FROM audit_block WHERE log = 1",),
    "the log given to another replica": (
        "UPDATE audit_log SET instance = 'two', origin = replace(origin, '/one/', '/two/') WHERE log = 1",
    ),
    "the newest checkpoints deleted": ("DELETE FROM checkpoint WHERE log = 1 AND size > 1",),
    "all checkpoints deleted": ("DELETE FROM checkpoint WHERE log = 1",),
    "all checkpoints deleted, and every pin renamed": (
        "DELETE FROM checkpoint WHERE log = 1",
        ALTERED.format("authority.pinned", "authority.hidden"),
    ),
    "another checkpoint in place of the newest": (
        "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE log = 1 AND size = 1) WHERE log = 1",
    ),
}
REFUSED = r"audit logs? 1 (was changed|is missing)|table worker was put back"


@pytest.mark.parametrize("next_one", ["one", "two"])
@pytest.mark.parametrize("hiding", HIDE)
async def test_hiding_the_pin_refuses_as_well(
    installation: Any, ended: dict[str, Any], hiding: str, next_one: str
) -> None:
    """Whoever puts a table back and tampers with its pin is refused for the log or for the table, by any replica."""
    installation.put_back("worker", ended)
    installation.sql(*HIDE[hiding])
    with pytest.raises((Tampered, StartRefused), match=REFUSED):
        await starts(installation, instance=next_one)


LATER = {
    "the log's row deleted": ("DELETE FROM audit_log WHERE log = 1",),
    "the log gone": tuple(f"DELETE FROM {table} WHERE log = 1" for table in ("audit_log", "audit_block", "checkpoint")),
    "the log cut back to its first checkpoint": (
        "DELETE FROM audit_block WHERE log = 1 AND seq > 0",
        "DELETE FROM checkpoint WHERE log = 1 AND size > 1",
        "UPDATE audit_log SET closed_at = NULL WHERE log = 1",
    ),
}


@pytest.mark.parametrize("hiding", [*HIDE, *LATER])
async def test_hiding_a_pin_behind_a_later_log_refuses(installation: Any, removed: dict[str, Any], hiding: str) -> None:
    """A refused start leaves a log without a pin; it vouches for the log before, and does not stand in for it."""
    installation.put_back("worker", removed)
    with pytest.raises(TableRolledBack):
        await starts(installation)
    installation.sql(*(HIDE | LATER)[hiding])
    with pytest.raises((Tampered, StartRefused), match=REFUSED):
        await starts(installation)


@pytest.mark.parametrize("next_one", ["one", "two"])
async def test_a_pin_that_is_not_signed_yet_counts_too(installation: Any, worker: Any, next_one: str) -> None:
    """What a crash left behind the last checkpoint still holds a table to what it says."""
    async with installation.life() as broker:
        kept = installation.keep("worker")
        await broker.authority.commit([], inserts=[worker("ann")])
        await broker.pins.write()
        assert broker.journal.unsigned
        copy = await installation.copy(broker, "crash.db")
    installation.become(copy)
    installation.put_back("worker", kept)
    with pytest.raises(TableRolledBack, match=r"it is at revision 1, and entry \d of audit log 1 .* pins revision 2"):
        await starts(installation, instance=next_one)


async def test_a_restored_backup_starts(installation: Any, worker: Any) -> None:
    """Putting back a whole database, its log included, is no attack, and later lives go on from there."""
    async with installation.life() as broker:
        await broker.authority.commit([], inserts=[worker("ann")])
        await installation.signed(broker)
        backup = await installation.copy(broker, "monday.backup")
        await broker.authority.commit([], inserts=[worker("bob")])
        await installation.signed(broker)
    await starts(installation)
    installation.become(backup)
    for _ in range(2):
        async with installation.life() as broker:
            assert [row.name for row in broker.authority.workers] == ["ann"]


async def test_an_operator_may_accept_it_once(installation: Any, removed: dict[str, Any], worker: Any) -> None:
    """The flag lets a start pass; the log says what was accepted, and later starts need no flag."""
    installation.put_back("worker", removed)
    async with installation.life(accept_audit_loss=True) as broker:
        assert ("ann",) in broker.authority.workers
    assert [pin.accepted for _, pin in await installation.pins(2)] == [("table worker 3 2",)]
    async with installation.life() as broker:
        await broker.authority.commit([], inserts=[worker("bob")])
    async with installation.life() as broker, installation.open() as storage:
        assert len(broker.authority.workers) == 2
        report = await verify_live(storage, vkey=broker.journal.vkey)
    assert report.ok, report.problems
    assert any("log 2, entry 1: an operator accepted" in text and "table worker 3 2" in text for text in report.notes)


async def test_accepting_covers_every_replica(installation: Any, worker: Any) -> None:
    """What was accepted stays so, even if the log that said otherwise is another replica's, which never returned."""
    async with installation.life("gone") as gone:
        kept = installation.keep("worker")
        await gone.authority.commit([], inserts=[worker("ann")])
        await installation.signed(gone)
        copy = await installation.copy(gone, "crash.db")
    installation.become(copy)
    installation.put_back("worker", kept)
    await starts(installation, accept_audit_loss=True)
    await starts(installation)


async def test_accepting_once_is_no_licence(installation: Any, removed: dict[str, Any], worker: Any) -> None:
    """After an acceptance, going back behind it is refused like any other."""
    installation.put_back("worker", removed)
    async with installation.life(accept_audit_loss=True) as broker:
        await broker.authority.commit([], inserts=[worker("bob")])
    installation.put_back("worker", removed)
    with pytest.raises(TableRolledBack, match=r"it is at revision 2, and entry 2 of audit log 2 .* pins revision 3"):
        await starts(installation)


async def test_accepting_a_broken_log_is_recorded(installation: Any, removed: dict[str, Any]) -> None:
    """A log that no longer verifies can be accepted too, once, by its number."""
    installation.sql(*HIDE["its event renamed"])
    with pytest.raises(LogBroken, match="audit log 1 was changed"):
        await starts(installation)
    await starts(installation, accept_audit_loss=True)
    assert [pin.accepted for _, pin in await installation.pins(3)] == [("log 1",)]
    await starts(installation)


async def test_the_flag_alone_accepts_nothing(installation: Any, removed: dict[str, Any]) -> None:
    """Where nothing is wrong, the flag leaves no trace, and the next start is held to the pins all the same."""
    await starts(installation, accept_audit_loss=True)
    assert [pin.accepted for _, pin in await installation.pins(2)] == [()]
    installation.put_back("worker", removed)
    with pytest.raises(TableRolledBack):
        await starts(installation)


async def test_an_audit_of_the_live_database_names_the_table(
    installation: Any, removed: dict[str, Any], worker: Any
) -> None:
    """`audit verify --live` compares manifests with pins by itself; an unsigned pin cannot call earlier ones off."""
    async with installation.life() as broker, installation.open() as storage:
        vkey = broker.journal.vkey
        assert (await verify_live(storage, vkey=vkey)).problems == []
        installation.put_back("worker", removed)
        (problem,) = (await verify_live(storage, vkey=vkey)).problems
        assert problem.startswith("table worker was put back: it is at revision 2, and entry ")
        broker.pins._since = 99
        await broker.pins.write()
        assert (await verify_live(storage, vkey=vkey)).problems == [problem]
