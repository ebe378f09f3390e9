"""What happens when the server ends connections, undoes statements, or goes away in the middle of the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest

from storage.conformance.samples import following, lease
from storage.errors import Conflict, Unavailable
from storage.port import AuditAppend, Commit, Committed
from storage.postgres import open_postgres
from storage.records import LeaseRecord

OURS = """\
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'tokenbroker' AND datname = '{}'"""


async def test_connections_that_the_server_ended_are_made_anew(postgres: Any) -> None:
    """After every connection of the pool was ended, calls fail at most once each and then succeed."""
    name = postgres.create()
    async with open_postgres(postgres.url(name)) as storage:
        await storage.commit(Commit(inserts=[lease(1)]))
        postgres.sql("postgres", OURS.format(name))
        for attempt in range(20):
            try:
                await storage.commit(Commit(inserts=[lease(2)]))
                break
            except Unavailable:
                assert attempt < 19
        assert await storage.get(LeaseRecord, lease(2).key) == lease(2)


async def test_listening_comes_back(postgres: Any) -> None:
    """A follower is woken by another handle's commit after the listening connection was lost."""
    name = postgres.create()
    url = postgres.url(name)
    async with open_postgres(url) as storage, open_postgres(url) as other:
        postgres.sql("postgres", OURS.format(name))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_wait(storage))
            while not waiting.done():
                try:
                    await other.commit(Commit(announce=[("lease", ("x",))]))
                    break
                except Unavailable:
                    await asyncio.sleep(0)


async def _wait(storage: Any) -> None:
    while True:
        try:
            return await storage.wait(0, 60)
        except Unavailable:
            await asyncio.sleep(0)


async def test_a_deadlock_is_tried_again(postgres: Any) -> None:
    """Two handles that update the same rows in opposite orders, again and again, lose only by compare-and-set."""
    url = postgres.url(postgres.create())
    async with open_postgres(url) as one, open_postgres(url) as two:
        rows = [lease(n) for n in range(40)]
        await one.commit(Commit(inserts=rows))
        for _ in range(15):
            outcomes = await asyncio.gather(
                one.commit(Commit(updates=[following(row) for row in rows])),
                two.commit(Commit(updates=[following(row) for row in reversed(rows)])),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes].count(Committed) == 1, outcomes
            assert [type(outcome) for outcome in outcomes].count(Conflict) == 1, outcomes
            rows = [following(row) for row in rows]


async def test_a_position_waits_for_the_commit_before_it(postgres: Any) -> None:
    """While a commit that took a position is not finished, no later one is seen, and none gets ahead of it."""
    name = postgres.create()
    async with open_postgres(postgres.url(name)) as storage:
        slow = await asyncpg.connect(postgres.url(name))
        try:
            began = slow.transaction()
            await began.start()
            head = "UPDATE tokenbroker.feed_head SET position = position + 1 RETURNING position"
            mine = await slow.fetchval(head)
            async with asyncio.TaskGroup() as tasks:
                later = tasks.create_task(storage.commit(Commit(announce=[("lease", ("later",))])))
                await storage.get(LeaseRecord, ("x",))
                assert await storage.feed(0) == []
                assert not later.done()
                await slow.execute("INSERT INTO tokenbroker.feed VALUES ($1, 'lease', '[\"earlier\"]')", mine)
                await began.commit()
            assert [(change.position, change.key) for change in await storage.feed(0)] == [
                (mine, ("earlier",)),
                (mine + 1, ("later",)),
            ]
            assert later.result().position == mine + 1
        finally:
            await slow.close()


async def test_a_frozen_replica_holds_no_lock(postgres: Any) -> None:
    """A commit that is on its way holds nothing between packets: one statement, no transaction that stays open."""
    name = postgres.create()
    async with open_postgres(postgres.url(name)) as storage:
        async with asyncio.TaskGroup() as tasks:
            for n in range(200):
                tasks.create_task(storage.commit(Commit(inserts=[lease(n)], announce=[("lease", (n,))])))
            idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = '{}'"
            seen = [postgres.sql("postgres", idle.format(name)) for _ in range(5)]
        assert seen == ["0"] * 5


async def test_a_stopped_server_is_unavailable_and_serves_again(postgres_of_its_own: Any) -> None:
    """What was acknowledged before the server was killed is there when it is back."""
    name = postgres_of_its_own.create()
    async with open_postgres(postgres_of_its_own.url(name)) as storage:
        await storage.commit(Commit(inserts=[lease(1)], audit=AuditAppend(1, (b"a", b"b"))))
        postgres_of_its_own.stop()
        with pytest.raises(Unavailable):
            await storage.commit(Commit(inserts=[lease(2)]))
        with pytest.raises(Unavailable):
            await storage.get(LeaseRecord, lease(1).key)
        postgres_of_its_own.start()
        for attempt in range(20):
            try:
                done = await storage.commit(Commit(inserts=[lease(3)], audit=AuditAppend(1, (b"c",))))
                break
            except Unavailable:
                assert attempt < 19
        assert done.first_seq == 2
        found = {record.key for record in (await storage.select(LeaseRecord)).records}
        assert found == {lease(1).key, lease(3).key}


async def test_a_frozen_server_keeps_nobody_waiting(postgres_of_its_own: Any) -> None:
    """While every process of the server is stopped, calls are Unavailable in their time; thawed, it serves."""
    name = postgres_of_its_own.create()
    async with open_postgres(postgres_of_its_own.url(name), answer_s=0.5) as storage:
        await storage.commit(Commit(inserts=[lease(1)]))
        postgres_of_its_own.freeze()
        calls = [
            *(storage.commit(Commit(inserts=[lease(n)])) for n in range(2, 30)),
            *(storage.get(LeaseRecord, lease(1).key) for _ in range(30)),
            storage.position(),
            storage.check(),
        ]
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}, outcomes
        postgres_of_its_own.thaw()
        async with asyncio.timeout(30):
            while not await _try(storage.commit(Commit(inserts=[lease(99)]))):
                continue
            assert await storage.get(LeaseRecord, lease(99).key) == lease(99)


async def test_closing_does_not_wait_for_a_frozen_server(postgres_of_its_own: Any) -> None:
    """Leaving the handle while nobody answers ends soon, and the commit on its way is Unavailable."""
    name = postgres_of_its_own.create()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        async with open_postgres(postgres_of_its_own.url(name), answer_s=0.5) as storage:
            postgres_of_its_own.freeze()
            commit = tasks.create_task(_try(storage.commit(Commit(inserts=[lease(1)]))))
            await asyncio.sleep(0)
        assert await commit is False


async def test_who_is_cancelled_breaks_no_connection(postgres: Any) -> None:
    """Readers that are cancelled again and again leave the connections as they are, for the next ones."""
    name = postgres.create()
    mine = f"SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname = '{name}'"
    async with open_postgres(postgres.url(name, options="?pool_max=2")) as storage:
        await asyncio.gather(*(storage.position() for _ in range(20)))
        before = postgres.sql("postgres", mine)
        for moment in range(60):
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(storage.position())
                for _ in range(moment % 12):
                    await asyncio.sleep(0)
                reading.cancel()
        assert await storage.position() == 0
        assert set(before.split()) <= set(postgres.sql("postgres", mine).split())


async def _try(call: Awaitable[object]) -> bool:
    try:
        await call
    except Unavailable:
        return False
    return True


async def test_what_a_column_cannot_hold_harms_no_other(postgres: Any) -> None:
    """Text with NUL and U+0001 comes back as it was, in the order of its code points."""
    texts = ["a", "a\0", "a\0\0", "a\0b", "a\1", "a\1\1", "a\1\2", "a\2", "b"]
    async with open_postgres(postgres.url(postgres.create())) as storage:
        await storage.commit(Commit(inserts=[lease(0, lease=text, reason=text) for text in reversed(texts)]))
        found = (await storage.select(LeaseRecord)).records
        assert [(record.lease, record.reason) for record in found] == [(text, text) for text in texts]
        behind = (await storage.select(LeaseRecord, after=("a\0b",))).records
        assert [record.lease for record in behind] == texts[4:]
