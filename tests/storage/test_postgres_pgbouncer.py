"""Behind PgBouncer in transaction mode every law of the port holds, and nothing is left behind on a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from storage.conformance import Opener, StorageLaws
from storage.conformance.samples import lease
from storage.errors import Unavailable
from storage.port import Commit
from storage.postgres import open_postgres
from storage.postgres.opening import migrate_postgres
from storage.records import LeaseRecord


@pytest.fixture(scope="module")
def pgbouncer(postgres: Any, poolers: ModuleType) -> Iterator[Any]:
    """A pooler before the shared server, which has the roles."""
    postgres.give_roles(postgres.create())
    with poolers.serving(postgres) as pooler:
        yield pooler


class TestLawsBehindPgBouncer(StorageLaws):
    """Every law, with three server connections shared by all handles, as the broker role."""

    @pytest.fixture
    async def opener(self, postgres: Any, pgbouncer: Any) -> Opener:
        name = postgres.create()
        postgres.give_roles(name)
        await migrate_postgres(pgbouncer.url(name, user="tokenbroker_migrator"))
        return lambda: open_postgres(pgbouncer.url(name, user="tokenbroker_broker"))


async def test_many_calls_at_once_get_each_their_own_answer(postgres: Any, pgbouncer: Any) -> None:
    """Two handles that read and write at once, over fewer server connections than they have, mix up no statements."""
    url = pgbouncer.url(postgres.create())
    async with open_postgres(url) as one, open_postgres(url) as two:
        await one.commit(Commit(inserts=[lease(n) for n in range(50)]))
        async with asyncio.TaskGroup() as tasks:
            reads = {n: tasks.create_task((one, two)[n % 2].get(LeaseRecord, lease(n % 50).key)) for n in range(200)}
            counts = [tasks.create_task((one, two)[n % 2].count(LeaseRecord, limit=20 + n)) for n in range(30)]
            for n in range(50, 60):
                tasks.create_task(two.commit(Commit(inserts=[lease(n)], announce=[("lease", (n,))])))
        assert [task.result() for task in reads.values()] == [lease(n % 50) for n in reads]
        assert [task.result() for task in counts] == list(range(20, 50))


async def test_a_frozen_server_keeps_nobody_waiting(postgres_of_its_own: Any, poolers: ModuleType) -> None:
    """While the server behind the pooler is stopped, calls are Unavailable in their time; thawed, it serves."""
    with poolers.serving(postgres_of_its_own) as pooler:
        async with open_postgres(pooler.url(postgres_of_its_own.create()), answer_s=0.5) as storage:
            await storage.commit(Commit(inserts=[lease(1)]))
            postgres_of_its_own.freeze()
            calls = [storage.commit(Commit(inserts=[lease(2)])), *(storage.position() for _ in range(30))]
            async with asyncio.timeout(30):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {Unavailable}, outcomes
            postgres_of_its_own.thaw()
            async with asyncio.timeout(60):
                while True:
                    try:
                        await storage.commit(Commit(inserts=[lease(3)]))
                        break
                    except Unavailable:
                        continue


async def test_no_transaction_stays_open(postgres: Any, pgbouncer: Any) -> None:
    """When the calls have their answers, no server connection is inside a transaction or holds a lock."""
    name = postgres.create()
    async with open_postgres(pgbouncer.url(name)) as storage:
        await asyncio.gather(*(storage.commit(Commit(inserts=[lease(n)])) for n in range(50)))
        held = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND state LIKE 'idle in transaction%'"
        assert postgres.sql("postgres", held) == "0"
