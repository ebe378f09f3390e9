"""Group commit in the SQLite adapter: what shares a transaction, what is bounded, what a slow or locked disk does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import group_commit
from storage.conformance.samples import following, lease
from storage.errors import Conflict, Unavailable
from storage.port import AuditAppend, Commit, Committed
from storage.records import LeaseRecord
from storage.sqlite import open_sqlite
from storage.sqlite.storage import SqliteStorage


@pytest.fixture
async def storage(database: Path) -> AsyncIterator[SqliteStorage]:
    """An open database."""
    async with open_sqlite(f"sqlite:///{database}", busy_timeout_s=0.2) as opened:
        yield opened


class Held:
    """The database's write lock, held by another connection, as another process would."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.close()


async def test_commits_issued_together_share_one_transaction(storage: SqliteStorage) -> None:
    """A hundred calls of one turn of the loop become one transaction."""
    statements: list[str] = []
    await storage._thread.set_trace_callback(statements.append)
    await asyncio.gather(*(storage.commit(Commit(inserts=[lease(n)])) for n in range(100)))
    await storage._thread.set_trace_callback(None)  # type: ignore[arg-type] - None stops tracing
    assert statements.count("COMMIT") == 1


async def test_commits_that_arrive_while_one_is_written_share_the_next(storage: SqliteStorage) -> None:
    """While the first call waits for the disk, ninety-nine more gather; they take one more transaction."""
    statements: list[str] = []
    await storage._thread.set_trace_callback(statements.append)
    gate = threading.Event()
    blocking = storage._thread.submit(lambda _: gate.wait(10))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(storage.commit(Commit(inserts=[lease(0)])))
        await asyncio.sleep(0.01)  # the first group has left for the thread, which is held
        for n in range(1, 100):
            tasks.create_task(storage.commit(Commit(inserts=[lease(n)])))
        await asyncio.sleep(0.01)
        gate.set()
    await blocking
    await storage._thread.set_trace_callback(None)  # type: ignore[arg-type] - None stops tracing
    assert statements.count("COMMIT") == 2
    assert len((await storage.select(LeaseRecord)).records) == 100


async def test_a_group_takes_few_statements(storage: SqliteStorage) -> None:
    """Rows of one table go in one statement whichever call they came from: steps are what a busy loop makes dear."""
    statements: list[str] = []
    await storage._thread.set_trace_callback(statements.append)
    append = AuditAppend(1, (b"entry",))
    await asyncio.gather(*(storage.commit(Commit(inserts=[lease(n)], audit=append)) for n in range(64)))
    await storage._thread.set_trace_callback(None)  # type: ignore[arg-type] - None stops tracing
    words = [statement.split()[0] for statement in statements]
    assert words == ["BEGIN", "INSERT", "SELECT", "INSERT", "COMMIT"]


async def test_a_conflict_in_a_group_costs_only_that_group(storage: SqliteStorage) -> None:
    """A group that was redone call by call gives the same outcomes, and the next one is whole again."""
    await storage.commit(Commit(inserts=[lease(3)]))
    append = AuditAppend(1, (b"e",))
    outcomes = await asyncio.gather(
        *(storage.commit(Commit(inserts=[lease(n)], audit=append, announce=[("lease", (n,))])) for n in range(6)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Committed] * 3 + [Conflict] + [Committed] * 2
    assert [outcome for outcome in outcomes if isinstance(outcome, Committed)] == [
        Committed(n + 1, n) for n in range(5)
    ]
    assert await storage.commit(Commit(audit=append, announce=[("lease", (9,))])) == (6, 5)


async def test_too_many_waiting_calls_are_refused(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound the next call is Unavailable at once; those accepted succeed, and so do later ones."""
    monkeypatch.setattr(group_commit, "WAITING_MAX", 8)
    outcomes = await asyncio.gather(
        *(storage.commit(Commit(inserts=[lease(n)])) for n in range(20)), return_exceptions=True
    )
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [n >= 8 for n in range(20)]
    await storage.commit(Commit(inserts=[lease(100)]))


async def test_a_group_is_bounded(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls beyond a group's bounds go with the next one; a call that is too large for any goes alone."""
    monkeypatch.setattr(group_commit, "GROUP_ITEMS_MAX", 10)
    monkeypatch.setattr(group_commit, "GROUP_CALLS_MAX", 3)
    statements: list[str] = []
    await storage._thread.set_trace_callback(statements.append)
    sizes = (1, 1, 1, 1, 8, 5, 30)
    groups = ((1, 1, 1), (1, 8), (5,), (30,))
    calls = [Commit(inserts=[lease(100 * at + n) for n in range(size)]) for at, size in enumerate(sizes)]
    await asyncio.gather(*(storage.commit(call) for call in calls))
    await storage._thread.set_trace_callback(None)  # type: ignore[arg-type] - None stops tracing
    assert statements.count("COMMIT") == len(groups)


async def test_a_locked_database_is_unavailable_and_recovers(storage: SqliteStorage, database: Path) -> None:
    """Another process holds the lock beyond the timeout: Unavailable, nothing written; then it serves again."""
    with Held(database):
        with pytest.raises(Unavailable, match="locked by another process"):
            await storage.commit(Commit(inserts=[lease(1)], audit=AuditAppend(1, (b"e",))))
        with pytest.raises(Unavailable, match="locked by another process"):
            await storage.check()
        assert await storage.get(LeaseRecord, lease(1).key) is None  # reading goes on
    assert (await storage.commit(Commit(inserts=[lease(1)], audit=AuditAppend(1, (b"e",))))).first_seq == 0


async def test_every_caller_gets_its_own_error(storage: SqliteStorage, database: Path) -> None:
    """Callers of a failed group can each handle, annotate and raise their error."""
    with Held(database):
        outcomes = await asyncio.gather(
            *(storage.commit(Commit(inserts=[lease(n)])) for n in range(3)), return_exceptions=True
        )
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 3


async def test_reads_do_not_wait_for_the_writer(storage: SqliteStorage) -> None:
    """While the writer's thread is stuck, records, pages, the feed and its position are answered."""
    await storage.commit(Commit(inserts=[lease(1)], announce=[("lease", ("x",))]))
    gate = threading.Event()
    stuck = storage._thread.submit(lambda _: gate.wait(20))
    try:
        async with asyncio.timeout(5):
            assert await storage.get(LeaseRecord, lease(1).key) == lease(1)
            assert len((await storage.select(LeaseRecord)).records) == 1
            assert await storage.position() == 1
            assert len(await storage.feed(0)) == 1
    finally:
        gate.set()
        await stuck


async def test_a_disk_that_does_not_answer_is_unavailable(database: Path) -> None:
    """After `answer_s` all who wait are told that it is unknown; the commit happens whole when the disk is back."""
    gate = threading.Event()
    async with open_sqlite(f"sqlite:///{database}", answer_s=0.1) as storage:
        stuck = storage._thread.submit(lambda _: gate.wait(20))
        try:
            with pytest.raises(Unavailable, match="may or may not exist"):
                await storage.commit(Commit(inserts=[lease(1)]))
        finally:
            gate.set()
            await stuck
    async with open_sqlite(f"sqlite:///{database}") as storage:
        assert await storage.get(LeaseRecord, lease(1).key) == lease(1)


async def test_who_comes_while_the_disk_is_silent_is_told_too(database: Path) -> None:
    """A call made after the first ones gave up gets its answer within the same time, and leaves nothing behind."""
    gate = threading.Event()
    async with open_sqlite(f"sqlite:///{database}", answer_s=0.1) as storage:
        stuck = storage._thread.submit(lambda _: gate.wait(20))
        try:
            async with asyncio.timeout(5):
                for n in range(3):
                    with pytest.raises(Unavailable):
                        await storage.commit(Commit(inserts=[lease(n)]))
        finally:
            gate.set()
            await stuck
    async with open_sqlite(f"sqlite:///{database}") as storage:
        assert [record.key for record in (await storage.select(LeaseRecord)).records] == [lease(0).key]


async def test_a_closing_that_is_cut_short_answers_everybody(database: Path) -> None:
    """Cancelled while it closes: the group on its way is written, who waits behind it gets Unavailable; none hangs."""
    gate = threading.Event()
    opened: asyncio.Future[SqliteStorage] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with open_sqlite(f"sqlite:///{database}") as storage:
            opened.set_result(storage)
            await asyncio.Event().wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve())
        storage = await opened
        storage._thread.submit(lambda _: gate.wait(20))
        first = tasks.create_task(_outcome(storage, 1))
        await asyncio.sleep(0.01)
        second = tasks.create_task(_outcome(storage, 2))
        await asyncio.sleep(0.01)
        for _ in range(2):  # the first ends the body, the second the wait for accepted commits
            serving.cancel()
            await asyncio.sleep(0.01)
        gate.set()
    assert isinstance(first.result(), Committed)
    assert isinstance(second.result(), Unavailable)
    async with open_sqlite(f"sqlite:///{database}") as storage:
        assert [record.key for record in (await storage.select(LeaseRecord)).records] == [lease(1).key]


async def _outcome(storage: SqliteStorage, number: int) -> Committed | Unavailable:
    try:
        return await storage.commit(Commit(inserts=[lease(number)]))
    except Unavailable as error:
        return error


async def test_a_call_cancelled_before_its_group_is_absent(storage: SqliteStorage) -> None:
    """What was cancelled while it waited for its turn is not written."""
    gate = threading.Event()
    stuck = storage._thread.submit(lambda _: gate.wait(20))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(storage.commit(Commit(inserts=[lease(1)])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first group is on its way, the second gathers
        waiting = [tasks.create_task(storage.commit(Commit(inserts=[lease(n)]))) for n in (2, 3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.set()
        await stuck
    assert [r.key for r in (await storage.select(LeaseRecord)).records] == [lease(1).key, lease(3).key]


async def test_two_handles_take_turns(database: Path) -> None:
    """Two handles on one file, writing as fast as they can, both finish; no update is lost."""
    async with open_sqlite(f"sqlite:///{database}") as one, open_sqlite(f"sqlite:///{database}") as two:

        async def write(handle: SqliteStorage, first: int) -> None:
            for n in range(first, first + 40):
                await handle.commit(Commit(inserts=[lease(n)], audit=AuditAppend(1, (b"e",))))
                await handle.commit(Commit(updates=[following(lease(n))], audit=AuditAppend(1, (b"e",))))

        await asyncio.gather(write(one, 0), write(two, 1000))
        found = (await one.select(LeaseRecord)).records
        assert len(found) == 80
        assert {record.rev for record in found} == {2}
        assert (await one.commit(Commit(audit=AuditAppend(1, (b"e",))))).first_seq == 160
